"""Dictionaries from disk and from releases: which are refused, and that codes stand on unit atoms."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saes_fixture import SOME_THINKER as IDENTITY
from safetensors.torch import load_file, save_file

from normprobe.errors import NormprobeError
from normprobe.models.identity import ModelIdentity
from normprobe.saes.dictionary import (
    CONFIG,
    WEIGHTS,
    Dictionary,
    describe,
    layer_folder,
    layers_of,
    load,
    open_given,
    random_dictionary,
    save,
)
from normprobe.saes.ownership import check
from normprobe.saes.training import generator_for

CPU = torch.device("cpu")


def made(layer: int = 2, **metadata: Any):
    return random_dictionary(
        16, 48, 4, describe(IDENTITY, layer, "model", 0) | metadata, generator_for(layer)
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of dictionaries, of layer 2 alone."""
    save(made(), layer_folder(tmp_path, 2))
    return tmp_path


def test_a_random_dictionary_has_unit_atoms_k_active_codes_and_its_generators_draw(folder):
    dictionary = load(layer_folder(folder, 2), IDENTITY, 2, CPU)
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(48))
    assert torch.equal(dictionary.atoms, made().W_dec)
    z = dictionary.encode(torch.randn(100, 16, generator=torch.Generator().manual_seed(0)))
    assert (z >= 0).all()
    assert ((z > 0).sum(dim=1) <= 4).all()


def test_lengths_of_atoms_move_into_the_code():
    sae = made()
    sae.W_dec.data *= torch.rand(48, 1, generator=torch.Generator().manual_seed(0)) + 0.5
    h = torch.randn(100, 16, generator=torch.Generator().manual_seed(1))
    dictionary = Dictionary.of(sae)
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(48))
    with torch.no_grad():
        torch.testing.assert_close(dictionary.reconstruct(dictionary.encode(h)), sae(h))
        sae.cfg.rescale_acts_by_decoder_norm = True
        rescaled = Dictionary.of(sae)
        torch.testing.assert_close(rescaled.reconstruct(rescaled.encode(h)), sae(h))
        assert torch.equal(rescaled.encode(h), sae.encode(h))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(NormprobeError) as error:
        call()
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("expected")
    return str(error.value)


@pytest.mark.parametrize(
    "change, layer, told",
    [
        ({"weights": "fedcba9876543210"}, 2, "fingerprint fedcba987654, got 0123456789ab"),
        ({"d_model": 32}, 2, "width 32, got 16"),
        ({}, 1, r"site blocks.1.hook_resid_post, got blocks.2.hook_resid_post"),
    ],
)
def test_a_dictionary_of_another_model_width_or_layer(folder, change, layer, told):
    identity = ModelIdentity(**IDENTITY.to_dict() | change)
    assert told in refused(lambda: load(layer_folder(folder, 2), identity, layer, CPU))


def test_a_dictionary_of_others_is_told_by_the_models_name():
    sae = made(model=None, model_name="meta/Some-Base")
    assert "model org/Some-Thinker, got meta/Some-Base" in refused(lambda: check(sae, IDENTITY, 2, "here"))
    mirrored = {"model_name": "mirror/some-thinker"}
    assert "got mirror/some-thinker" in refused(lambda: check(sae, IDENTITY, 2, "here", **mirrored))
    check(sae, IDENTITY, 2, "here", of="mirror/Some-Thinker", **mirrored)
    check(sae, IDENTITY, 2, "here", model_name="Org/some-thinker")  # SAELens's list of releases knows better


def test_a_dictionary_of_ours_is_told_by_the_weights_alone():
    sae = made(model=IDENTITY.to_dict() | {"name": "/elsewhere"})
    check(sae, IDENTITY, 2, "here")
    base = IDENTITY.to_dict() | {"weights": "fedcba9876543210", "name": "org/some-base"}
    child = made(model=base)
    assert "--saes-of org/some-base" in refused(lambda: check(child, IDENTITY, 2, "here"))
    check(child, IDENTITY, 2, "here", of="org/Some-Base")


def truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def broken_json(folder: Path) -> None:
    (folder / CONFIG).write_text("{")


def other_shape(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"W_dec": weights["W_dec"][:40].clone()}, folder / WEIGHTS)


def nan(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["W_enc"][0, 0] = torch.nan
    save_file(weights, folder / WEIGHTS)


def zero_atom(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["W_dec"][5] = 0
    save_file(weights, folder / WEIGHTS)


def configured(**settings: object) -> Callable[[Path], None]:
    """Other settings in the saved dictionary's cfg.json."""

    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | settings))

    return change


def normalised(how: str) -> Callable[[Path], None]:
    """SAELens's normalize_activations of the saved dictionary."""
    return configured(normalize_activations=how)


@pytest.mark.parametrize(
    "damage, told",
    [
        (truncate, "expected a readable dictionary in"),
        (no_weights, r"got no sae_weights\.safetensors"),
        (broken_json, "expected a readable dictionary in"),
        (other_shape, "expected a readable dictionary in"),
        (nan, "expected finite weights and no zero atoms"),
        (zero_atom, "expected finite weights and no zero atoms"),
        (
            configured(apply_b_dec_to_input="%s"),
            r"expected apply_b_dec_to_input true or false in the dictionary's cfg\.json at .* got '%s'",
        ),
        (
            configured(rescale_acts_by_decoder_norm="no"),
            "expected rescale_acts_by_decoder_norm true or false",
        ),
        (
            normalised("layer_norm"),
            "got normalize_activations='layer_norm' at blocks.2.hook_resid_post, which erases",
        ),
        (
            normalised("constant_norm_rescale"),
            "got normalize_activations='constant_norm_rescale' .*, which erases it",
        ),
        (
            normalised("expected_average_only_in"),
            "reads raw states, got .*'expected_average_only_in' .* fold them",
        ),
        # Older versions of SAELens do not know this one, and refuse it themselves.
        (
            normalised("covariance_whitening"),
            r"reads raw states, got .*'covariance_whitening' .* fold them|readable .* Got covariance_whitening",
        ),
    ],
)
def test_a_damaged_or_unfit_dictionary(folder, damage, told):
    damage(layer_folder(folder, 2))
    assert re.search(told, refused(lambda: load(layer_folder(folder, 2), IDENTITY, 2, CPU)))


def test_saving_replaces_leftovers_of_an_interrupted_save(tmp_path):
    leftover = tmp_path / "layer_02.tmp"
    leftover.mkdir()
    (leftover / "half").touch()
    save(made(), layer_folder(tmp_path, 2))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [CONFIG, "layer_02", WEIGHTS]


def test_a_folder_gives_the_layers_that_it_has(folder):
    assert layers_of(str(folder), range(4)) == [2]
    assert "got layer_02" in refused(lambda: layers_of(str(folder), [0, 1]))
    dictionary = open_given(str(folder), IDENTITY, 2, CPU)
    assert torch.equal(dictionary.atoms, made().W_dec)


@pytest.mark.parametrize("given", ["no_such_folder", "release:without_the_layer"])
def test_what_is_neither_folder_nor_release(given):
    assert "RELEASE:ID with {layer}" in refused(lambda: layers_of(given, range(4)))
    assert layers_of("release:l{layer}r", [1, 2]) == [1, 2]


@pytest.mark.parametrize(
    "given",
    [
        "no_such_release:l{layer}",
        "llama_scope_r1_distill:no_such_{layer}",
        "llama_scope_r1_distill:l{layer}r_800m_slimpajama",  # which there is, but tests reach no network
        "nobody/nothing:l{layer}",
    ],
)
def test_a_release_that_cannot_be_had(given):
    told = refused(lambda: open_given(given, IDENTITY, 0, CPU))
    assert f"the published dictionary {given.replace('{layer}', '0')}" in told
    assert told.endswith("check release, id and connection")


def test_the_release_of_the_study_exists_in_saelens_list_for_its_model():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    from normprobe.study_file import read_study

    study = read_study(Path(__file__).parents[2] / "sae_training" / "r1_distill_llama_8b.yaml")
    assert study.saes.given is not None
    release, _, pattern = study.saes.given.partition(":")
    known = get_pretrained_saes_directory()[release]
    assert known.model == study.model.name
    assert all(pattern.replace("{layer}", str(layer)) in known.saes_map for layer in range(32))
