"""What is saved is SAELens's format: it loads there, bit by bit, and reads raw activations without us."""

import json

import numpy as np
import pytest
import torch
from sae_lens.saes.sae import SAEMetadata
from saes_fixture import SOME_THINKER

from normprobe.config import SaeSettings
from normprobe.saes.dictionary import (
    CONFIG,
    Dictionary,
    hook_name,
    layers_of,
    open_given,
    random_dictionary,
    save,
)
from normprobe.saes.training import generator_for, train_sae

METADATA = {"model_name": "m", "hook_name": hook_name(3), "layer": 3, "model": {"weights": "abc"}, "seed": 7}


@pytest.fixture(scope="module")
def states() -> torch.Tensor:
    return 50 * torch.randn(600, 24, generator=torch.Generator().manual_seed(0)).exp()


@pytest.fixture(scope="module", params=["trained", "random"])
def sae(request, states):
    if request.param == "random":
        return random_dictionary(24, 40, 5, METADATA, generator_for(0))
    settings = SaeSettings(width=40, k=5, n_samples=2000, batch_size=50)
    return train_sae(states, settings, METADATA, generator_for(0), torch.device("cpu"))


@pytest.fixture(scope="module")
def loaded(sae, tmp_path_factory):
    from sae_lens import SAE

    folder = tmp_path_factory.mktemp("saes") / "layer_03"
    save(sae, folder)
    assert json.loads((folder / CONFIG).read_text())["architecture"] == "topk"
    return SAE.load_from_disk(folder)


def test_outputs_on_raw_activations_are_bit_equal(sae, loaded, states):
    with torch.no_grad():
        assert torch.equal(loaded(states), sae(states))
        assert torch.equal(loaded.encode(states), sae.encode(states))


def test_we_read_it_as_saelens_does_to_the_bit(loaded, states):
    dictionary = Dictionary.of(loaded)
    with torch.no_grad():
        z = loaded.encode(states)
        assert torch.equal(dictionary.encode(states), z)
        assert torch.equal(dictionary.reconstruct(z), loaded.decode(z))


def test_the_formula_of_the_format(loaded, states):
    """z = TopK(ReLU((h − b_dec) W_enc + b_enc)), h ≈ z W_dec + b_dec, in float64 numpy."""
    W_enc, W_dec, b_enc, b_dec = (
        getattr(loaded, name).detach().double().numpy() for name in ("W_enc", "W_dec", "b_enc", "b_dec")
    )
    before = (states.double().numpy() - b_dec) @ W_enc + b_enc
    threshold = np.sort(before, axis=1)[:, -5:-4]
    z = np.where(before >= threshold, np.maximum(before, 0), 0)
    with torch.no_grad():
        np.testing.assert_allclose(loaded.encode(states).numpy(), z, rtol=1e-3, atol=1e-3 * z.max())
        np.testing.assert_allclose(loaded(states).numpy(), z @ W_dec + b_dec, rtol=1e-3, atol=1e-3 * z.max())
    np.testing.assert_allclose(np.linalg.norm(W_dec, axis=1), 1, rtol=1e-6)


def test_nothing_in_the_configuration_rescales_a_token(loaded):
    assert loaded.cfg.normalize_activations == "none"
    assert loaded.cfg.rescale_acts_by_decoder_norm is False
    assert loaded.cfg.apply_b_dec_to_input is True
    assert (loaded.cfg.d_in, loaded.cfg.d_sae, loaded.cfg.k) == (24, 40, 5)


def test_the_metadata_survive(loaded):
    for key, value in METADATA.items():
        assert loaded.cfg.metadata[key] == value
    assert int(loaded.cfg.metadata.sae_lens_version.split(".")[0]) >= 6


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "standard", "gated"])
def test_a_folder_of_saelens_gives_its_codes_and_reconstructions(architecture, tmp_path, states):
    """Saved by SAELens itself, with atoms of any length: Σ z_i·d_i is the same, and the d_i are unit vectors."""
    from sae_lens import SAE
    from sae_lens.registry import get_sae_class

    kind, configuration = get_sae_class(architecture)
    name = {"model_name": "org/Some-Thinker", "hook_name": "blocks.2.hook_resid_post"}
    only = {"k": 5, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}
    made = kind(configuration(d_in=16, d_sae=40, metadata=SAEMetadata(**name), **only))
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for label, parameter in made.named_parameters():
            drawn = torch.randn(parameter.shape, generator=draw)
            parameter.copy_(drawn.abs() if label == "threshold" else drawn)
    made.save_model(tmp_path / "layer_02")
    h, theirs = states[:, :16], SAE.load_from_disk(tmp_path / "layer_02")
    assert layers_of(str(tmp_path), range(4)) == [2]
    dictionary = open_given(str(tmp_path), SOME_THINKER, 2, torch.device("cpu"))
    z = dictionary.encode(h)
    with torch.no_grad():
        expected = theirs.encode(h)
        lengths = torch.linalg.vector_norm(theirs.W_dec, dim=1)
        torch.testing.assert_close(z, expected * lengths)
        torch.testing.assert_close(dictionary.reconstruct(z), theirs.decode(expected), rtol=1e-4, atol=1e-2)
    assert (expected > 0).any()
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(40))


def test_a_scale_folded_by_saelens_leaves_codes_of_raw_states(tmp_path, states):
    """expected_average_only_in is one number for all tokens: folded into the weights, codes still follow the norm."""
    from sae_lens import SAE, StandardSAE, StandardSAEConfig

    name = SAEMetadata(model_name="org/Some-Thinker", hook_name="blocks.2.hook_resid_post")
    scaled = StandardSAEConfig(
        d_in=16, d_sae=40, normalize_activations="expected_average_only_in", metadata=name
    )
    with torch.random.fork_rng(devices=[]):
        sae = StandardSAE(scaled)
    h = states[:, :16]
    with torch.no_grad():
        expected = sae.decode(sae.encode(h * 0.25)) / 0.25
        sae.fold_activation_norm_scaling_factor(0.25)
    sae.save_model(tmp_path / "layer_02")
    assert SAE.load_from_disk(tmp_path / "layer_02").cfg.normalize_activations == "none"
    dictionary = open_given(str(tmp_path), SOME_THINKER, 2, torch.device("cpu"))
    torch.testing.assert_close(dictionary.reconstruct(dictionary.encode(h)), expected, rtol=1e-4, atol=1e-2)
