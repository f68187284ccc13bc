"""The pass over the responses against a slow reference that reads each one alone and keeps every activation."""

import numpy as np
import pytest
import torch

from normprobe.feature_pages import activity
from normprobe.feature_pages.activity import CONTEXT, EDGES, TracedTokens, read_activity
from normprobe.models.sites import record_sites
from normprobe.thinking_formats import MODES

FEATURES = {1: [3, 0, 17], 3: [5, 11]}


@pytest.fixture
def traced(responses) -> TracedTokens:
    return TracedTokens(responses, np.random.default_rng(0))


@pytest.fixture
def codes(opened, responses, dictionaries) -> dict[int, list[np.ndarray]]:
    """Layer → by response the activations of its features, [token, feature]."""
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in FEATURES}
    for ids in responses["token_ids"]:
        with torch.no_grad(), record_sites(opened) as sites:
            opened.model(torch.tensor([ids]))
            states = sites.states
        for layer, features in FEATURES.items():
            found[layer].append(dictionaries[layer].encode(states[layer][0])[:, features].numpy())
    return found


def inside(response) -> np.ndarray:
    spans = [("thought_start", "thought_end"), ("answer_start", "answer_end")]
    return np.concatenate([np.arange(response[a], response[b]) for a, b in spans]).astype(int)


@pytest.mark.parametrize("layer", FEATURES)
def test_sums_and_histograms_are_those_of_the_reference(
    opened, responses, dictionaries, traced, codes, layer
):
    found = read_activity(opened, traced, dictionaries, FEATURES)[layer]
    measured = responses["split"] == "measure"
    for row in np.flatnonzero(responses["split"] != "sae"):
        own = codes[layer][row][inside(responses.iloc[row])]
        np.testing.assert_allclose(found.means[row], own.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(found.maxima[row], own.max(axis=0), atol=1e-4)
    for mode, counts in zip(MODES, found.counts, strict=True):
        rows = np.flatnonzero(measured & (responses["mode"] == mode))
        z = np.concatenate([codes[layer][row][inside(responses.iloc[row])] for row in rows])
        assert (counts.sum(axis=0) == len(z)).all()
        assert (counts[0] == (z == 0).sum(axis=0)).all()
        for feature in range(z.shape[1]):
            expected = np.histogram(z[:, feature][z[:, feature] > 0], bins=EDGES)[0]
            assert (
                np.abs(counts[1:, feature] - expected).sum() <= 2
            )  # an activation at an edge may round over it
        means = [codes[layer][row][inside(responses.iloc[row])].mean(axis=0) for row in rows]
        np.testing.assert_allclose(found.mean_in(mode), np.mean(means, axis=0), atol=1e-4)


@pytest.mark.parametrize("split", ["select", "measure"])
def test_sums_by_token_are_those_of_thoughts_and_answers_in_think_and_no_think(
    opened, responses, dictionaries, traced, codes, split
):
    found = read_activity(opened, traced, dictionaries, FEATURES)[1]
    rows = np.flatnonzero((responses["split"] == split) & responses["mode"].isin(["think", "no_think"]))
    ids = np.concatenate(
        [np.array(responses["token_ids"].iloc[row])[inside(responses.iloc[row])] for row in rows]
    )
    z = np.concatenate([codes[1][row][inside(responses.iloc[row])] for row in rows])
    sums = found.identity[split]
    for place, token in enumerate(traced.distinct):
        assert sums.n[place] == (ids == token).sum()
        np.testing.assert_allclose(sums.total[place], z[ids == token].sum(axis=0), atol=1e-3)
    np.testing.assert_allclose(sums.squares, np.square(z).sum(axis=0), rtol=1e-4)
    shuffled = found.shuffled[split]
    assert (shuffled.n == sums.n).all()
    np.testing.assert_allclose(shuffled.total.sum(axis=0), sums.total.sum(axis=0), rtol=1e-6)
    assert not np.allclose(shuffled.total, sums.total)


def test_examples_are_the_strongest_tokens_each_of_another_response(
    opened, responses, dictionaries, traced, codes, monkeypatch
):
    monkeypatch.setattr(activity, "EXAMPLES", 6)
    found = read_activity(opened, traced, dictionaries, FEATURES)
    measured = np.flatnonzero(responses["split"] == "measure")
    for layer, features in FEATURES.items():
        for feature in range(len(features)):
            best = {row: codes[layer][row][inside(responses.iloc[row]), feature].max() for row in measured}
            expected = sorted((value for value in best.values() if value > 0), reverse=True)[:6]
            examples = found[layer].examples[feature]
            np.testing.assert_allclose([example.activation for example in examples], expected, atol=1e-4)
            assert len({example.response for example in examples}) == len(examples)
            for example in examples:
                z = codes[layer][example.response][:, feature]
                assert z[example.position] == pytest.approx(example.activation, abs=1e-4)
                assert example.start == max(example.position - CONTEXT, 0)
                window = slice(example.start, example.position + CONTEXT + 1)
                np.testing.assert_allclose(example.values, z[window], atol=1e-4)


def test_memory_changes_nothing(opened, traced, dictionaries):
    free, tight = (
        read_activity(opened, traced, dictionaries, FEATURES, memory=memory)[3]
        for memory in (None, 4_000_000)
    )
    np.testing.assert_allclose(free.sums, tight.sums, rtol=1e-4)
    assert [len(kept) for kept in free.examples] == [len(kept) for kept in tight.examples]
