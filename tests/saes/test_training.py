"""Sampling states, training on them, folding: what is learned, what it depends on, what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from saes_fixture import write_tables
from safetensors.torch import load_file

from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.saes import training
from normprobe.saes.activations import chunks, draw_tokens, layer_groups, paired_responses, sample_states
from normprobe.saes.dictionary import Dictionary, random_dictionary
from normprobe.saes.held_out import quality
from normprobe.saes.training import fold, generator_for, shuffled, train_sae, train_together, visits

CPU = torch.device("cpu")
SETTINGS = SaeSettings(width=64, k=4, n_samples=12_800, batch_size=64)


@pytest.fixture
def opened(make_tiny_qwen3) -> OpenModel:
    return assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)


@pytest.fixture
def responses(opened) -> pd.DataFrame:
    return paired_responses(write_tables(opened)[1])


@pytest.fixture(scope="module")
def states() -> torch.Tensor:
    """Sparse mixtures of 48 directions on an offset, lengths around 200: nothing is normalised beforehand."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(48, 32, generator=generator), dim=1)
    codes = torch.rand(4000, 48, generator=generator) * (torch.rand(4000, 48, generator=generator) < 0.06)
    return 200 * codes @ atoms + 100


def trained_by(trainer: str, states: torch.Tensor, seed: int = 0):
    """One autoencoder by SAELens's trainer, or by ours beside one of other states."""
    if trainer == "sae_lens":
        return train_sae(states, SETTINGS, {}, generator_for(seed), CPU)
    return together(torch.stack([states.flip(1), states]), seed=seed)[1]


def together(both: torch.Tensor, *, parts=1, seed=0, order_seed=None, settings=SETTINGS, **options):
    """Autoencoders of two sites, called layers 3 and 7, from states that come in so many parts."""
    split = both.tensor_split(parts, dim=1)
    generators, metadata = [generator_for(seed, i) for i in range(2)], [{"layer": 3}, {"layer": 7}]
    sizes = [part.shape[1] for part in split]
    order = generator_for(seed if order_seed is None else order_seed, "order")
    return train_together(split.__getitem__, sizes, settings, metadata, generators, order, CPU, **options)


@pytest.fixture(scope="module", params=["normprobe", "sae_lens"])
def trainer(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(trainer, states):
    return trained_by(trainer, states)


@pytest.fixture(scope="module")
def trained_together(states):
    return trained_by("normprobe", states)


def test_tokens_of_the_split_in_both_modes_without_the_first(opened, responses):
    assert set(responses["split"]) == {"sae"}
    assert set(responses["mode"]) == {"think", "no_think"}
    lengths = responses["token_ids"].map(len).to_numpy()
    first = np.cumsum(lengths) - lengths
    everything = draw_tokens(responses, 10**6, generator_for(0))
    assert everything.tolist() == sorted(set(range(lengths.sum())) - set(first))
    some = draw_tokens(responses, 50, generator_for(0))
    assert len(set(some)) == 50
    assert some.tolist() == sorted(some)
    assert set(some) <= set(everything)
    np.testing.assert_array_equal(some, draw_tokens(responses, 50, generator_for(0)))
    assert some.tolist() != draw_tokens(responses, 50, generator_for(1)).tolist()


def test_sampled_states_are_the_models(opened, responses):
    rows = draw_tokens(responses, 200, generator_for(0))
    states = sample_states(opened, responses, rows, [1, 2], "model")
    assert states.shape == (2, 200, 32)
    keys = [(r, p) for r, ids in enumerate(responses["token_ids"]) for p in range(len(ids))]
    for i in (0, 57, 199):
        response, position = keys[rows[i]]
        ids = torch.tensor([responses["token_ids"].iloc[response]])
        with torch.no_grad():
            hidden = opened.model(ids, output_hidden_states=True).hidden_states
        expected = torch.stack([hidden[2][0, position], hidden[3][0, position]])
        torch.testing.assert_close(states[:, i], expected, rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(0, 99), min_size=1, unique=True), st.integers(1, 1000), st.integers(0, 5000))
def test_layer_groups_keep_order_and_fit_where_one_layer_does(layers, size, memory):
    groups = layer_groups(layers, size, memory)
    assert [layer for group in groups for layer in group] == layers
    assert all(len(group) == 1 or len(group) * size <= memory for group in groups)


@given(st.integers(1, 40), st.integers(1, 60))
def test_every_row_comes_before_any_comes_again(n, size):
    batches = shuffled(n, size, torch.Generator().manual_seed(0))
    drawn = torch.cat([next(batches) for _ in range(3 * n)])
    for start in range(0, len(drawn) - n + 1, n):
        assert sorted(drawn[start : start + n].tolist()) == list(range(n))


def test_it_learns_what_is_there(trained, states):
    found = quality(Dictionary.of(trained), states)
    control = quality(Dictionary.of(random_dictionary(32, 64, 4, {}, generator_for(0))), states)
    assert found["r2"] > 0.85
    assert found["r2"] > control["r2"] + 0.3
    assert 2 < found["l0"] <= 4
    assert found["dead_fraction"] < 0.3


def test_an_encoder_in_bfloat16_learns_as_much(trained_together, states):
    both = torch.stack([states.flip(1), states])
    rounded = together(both, settings=replace(SETTINGS, encoder="bfloat16"))[1]
    exact, found = (quality(Dictionary.of(sae), states)["r2"] for sae in (trained_together, rounded))
    assert found == pytest.approx(exact, abs=0.005)
    assert found != exact


def test_atoms_are_unit_vectors_and_the_input_is_raw(trained, states):
    dictionary = Dictionary.of(trained)
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(64))
    assert trained.cfg.normalize_activations == "none"
    assert trained.cfg.rescale_acts_by_decoder_norm is False
    rebuilt = dictionary.reconstruct(dictionary.encode(states))
    assert (states - rebuilt).norm() < 0.33 * (states - states.mean(dim=0)).norm()


def test_the_code_grows_with_the_state(trained, states):
    """One scale per layer, not per token: a state twice as far from the offset has codes about twice as large."""
    dictionary = Dictionary.of(trained)
    far = 2 * (states - dictionary.bias) + dictionary.bias
    ratio = dictionary.encode(far).sum() / dictionary.encode(states).sum()
    assert 1.7 < float(ratio) < 2.3


def test_folding_changes_no_reconstruction(states):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

    config = TopKTrainingSAEConfig(
        d_in=32, d_sae=64, k=4, rescale_acts_by_decoder_norm=True, decoder_init_norm=0.3
    )
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        sae = TopKTrainingSAE(config)
    sae.b_enc.data = torch.randn(64, generator=generator)
    sae.b_dec.data = torch.randn(32, generator=generator)
    with torch.no_grad():
        before, code = sae(0.02 * states) / 0.02, sae.encode(0.02 * states) / 0.02
        folded = fold(sae, 0.02)
        torch.testing.assert_close(folded(states), before, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(folded.encode(states), code, rtol=1e-4, atol=1e-2)


def test_same_seed_same_weights_and_no_global_seed(trainer, trained, states):
    before = torch.get_rng_state()
    torch.rand(3)
    after = torch.get_rng_state()
    again = trained_by(trainer, states)
    assert torch.equal(torch.get_rng_state(), after)
    torch.set_rng_state(before)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    other = trained_by(trainer, states, seed=1)
    assert not torch.equal(trained.W_dec, other.W_dec)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_stopped_training_goes_on_from_its_checkpoint(states, tmp_path, monkeypatch, parts):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    checkpoint, steps = tmp_path / "unfinished.safetensors", []

    def train(on_step):
        both, settings = torch.stack([states, 2 * states])[:, :400], replace(SETTINGS, n_samples=1280)
        return together(both, parts=parts, settings=settings, checkpoint=checkpoint, on_step=on_step)

    def stop_after_seven(samples: int, r2: torch.Tensor, dead: torch.Tensor) -> None:
        assert r2.shape == dead.shape == (2,)
        assert (r2 < 1).all()
        steps.append(samples)
        if len(steps) == 7:
            raise KeyboardInterrupt

    whole = train(lambda *_: None)
    checkpoint.unlink()
    with pytest.raises(KeyboardInterrupt):
        train(stop_after_seven)
    assert load_file(checkpoint)["done"] == 7
    for sae, expected in zip(train(lambda samples, *_: steps.append(samples)), whole, strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, sae.state_dict()[name]), name
    assert steps[7:] == [128] * 20  # what was done before counts in the progress


def test_a_process_that_is_ahead_reads_what_the_others_still_learn_from(states, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(training, "visits", lambda *_: [(0, 4), (1, 4), (2, 4)])
    settings, parts = replace(SETTINGS, n_samples=12 * 64), states[None, :768].tensor_split(3, dim=1)

    def train(agree, read_chunks: list[int], stop_after: int = 12):
        def read(number: int) -> torch.Tensor:
            read_chunks.append(number)
            return parts[number]

        def stop(*_):
            stops.append(1)
            if len(stops) == stop_after:
                raise KeyboardInterrupt

        stops, on_step = [], stop if stop_after < 12 else lambda *_: None
        place = {"checkpoint": tmp_path / "unfinished.safetensors", "on_step": on_step, "agree": agree}
        order = generator_for(0, "order")
        return train_together(read, [256] * 3, settings, [{}], [generator_for(0)], order, CPU, **place)

    with pytest.raises(KeyboardInterrupt):
        train(lambda done: done, [], stop_after=9)
    alone, together_with_one_behind = [], []
    (expected,) = train(lambda done: done, alone)
    (tmp_path / "unfinished.safetensors").unlink()
    with pytest.raises(KeyboardInterrupt):
        train(lambda done: done, [], stop_after=9)
    (found,) = train(lambda done: min(done, 2), together_with_one_behind)
    assert (alone, together_with_one_behind) == ([0, 2], [0, 1, 2])
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_states_in_chunks_teach_as_much(trained_together, states):
    in_chunks = together(torch.stack([states.flip(1), states]), parts=4)[1]
    found, expected = (quality(Dictionary.of(sae), states)["r2"] for sae in (in_chunks, trained_together))
    assert found == pytest.approx(expected, abs=0.02)


def test_several_seeds_in_one_training_are_what_each_gives_alone(states):
    both = torch.stack([states.flip(1), states])
    alone = [sae for seed in (0, 1) for sae in together(both, seed=seed, order_seed=5)]
    generators = [generator_for(seed, i) for seed in (0, 1) for i in range(2)]
    metadata = [{"layer": layer} for _ in range(2) for layer in (3, 7)]
    found = train_together(
        lambda _: both, [4000], SETTINGS, metadata, generators, generator_for(5, "order"), CPU
    )
    for sae, expected in zip(found, alone, strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, sae.state_dict()[name]), name
    assert not torch.equal(found[0].W_dec, found[2].W_dec)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 20), st.integers(1, 60))
def test_every_chunk_is_visited_once_before_any_again(sizes, batch, steps):
    settings = SaeSettings(batch_size=batch, n_samples=batch * steps)
    found = list(visits(sizes, settings, generator_for(0)))
    assert sum(n for _, n in found) == steps
    if len(sizes) > 1:
        numbers = [number for number, _ in found]
        for start in range(0, len(numbers) - len(sizes) + 1, len(sizes)):
            assert sorted(numbers[start : start + len(sizes)]) == list(range(len(sizes)))
        assert all(n <= max(1, sizes[number] // batch) for number, n in found)


@given(st.lists(st.integers(2, 12), min_size=1, max_size=8), st.integers(1, 30), st.integers(1, 60))
def test_chunks_hold_every_token_once(lengths, size, n):
    responses = pd.DataFrame({"token_ids": [np.arange(100 * i, 100 * i + n) for i, n in enumerate(lengths)]})
    rows = draw_tokens(responses, n, generator_for(0))
    parts = chunks(responses, rows, size, generator_for(1))
    assert len(parts) == -(-len(rows) // size)
    assert all(len(part.rows) <= size for part in parts)
    every = np.concatenate(responses["token_ids"].to_numpy())
    found = [np.concatenate(part.responses["token_ids"].to_numpy())[part.rows] for part in parts]
    assert sorted(np.concatenate(found)) == sorted(every[rows])
    # Whole responses: each lies in one chunk, but for those that end one.
    owners = pd.Series([{int(token) // 100 for token in part} for part in found]).explode()
    assert len(owners) - owners.nunique() < len(parts)


@pytest.mark.parametrize("same", [0.0, 3.0])
def test_a_layer_that_never_changes_is_refused(states, same):
    with pytest.raises(
        NormprobeError, match="states that differ, got the same at all 4,000 tokens in layer 7"
    ):
        together(torch.stack([states, torch.full_like(states, same)]))


def test_a_training_that_diverges_is_refused(states):
    broken = states.index_fill(0, torch.tensor([5]), torch.nan)
    with pytest.raises(
        NormprobeError, match=r"expected a training that converges, .* in layer 7 after 0 of 200"
    ):
        together(torch.stack([states, broken]))


def test_states_that_are_not_finite_are_refused_by_layer(opened, responses):
    with torch.no_grad():
        opened.blocks[2].mlp.down_proj.weight[0, 0] = torch.nan
    rows = draw_tokens(responses, 10, generator_for(0))
    with pytest.raises(NormprobeError, match="got NaN or infinity in layer 2 of subject 'early'") as refused:
        sample_states(opened, responses, rows, [0, 1, 2, 3], "early")
    assert "\n" not in str(refused.value)
    assert sample_states(opened, responses, rows, [0, 1], "early").isfinite().all()


@pytest.mark.parametrize("split", ["sae", "select"])
def test_nothing_to_train_or_judge_on_is_refused(opened, split):
    responses = write_tables(opened, 6)[1]
    for table in (responses[responses["split"] != split], responses[responses["mode"] == "filler"]):
        with pytest.raises(NormprobeError, match=rf"expected responses in split '{split}' .* got none"):
            paired_responses(table, split)


@pytest.mark.parametrize("k", [0, 65])
def test_more_active_features_than_features_are_refused(k):
    with pytest.raises(NormprobeError, match=r"expected saes.k (above 0|of 1 to 64 .*), got"):
        SaeSettings(width=64, k=k)


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{half"])
def test_a_damaged_checkpoint_is_one_line_and_is_left_as_it_is(states, tmp_path, content):
    checkpoint = tmp_path / "unfinished.safetensors"
    checkpoint.write_bytes(content)
    with pytest.raises(NormprobeError, match=r"expected the state of this training in .*; delete it, and"):
        together(torch.stack([states, states]), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == content
