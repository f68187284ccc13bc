"""The stream of sites: every token once, under its key, whatever the batches."""

import weakref

import numpy as np
import pandas as pd
import pytest
import torch

from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import VOCABULARY
from normprobe.tracing.stream import Piece, batch_plan, pad, stream_states, token_offsets

LENGTHS = [9, 4, 17, 4, 1, 12, 6]
SPLITS = ["sae", "select", "sae", "measure", "sae", "select", "measure"]


@pytest.fixture
def opened(make_tiny_qwen3) -> OpenModel:
    return assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)


@pytest.fixture
def responses() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ids = [rng.integers(len(VOCABULARY), size=n) for n in LENGTHS]
    return pd.DataFrame({"split": SPLITS, "token_ids": ids}, index=list("abcdefg"))


@pytest.mark.parametrize("pass_bytes", [1, 2**27])  # chunks of 16 tokens, and all at once
def test_every_token_comes_once_in_each_layer_with_the_state_that_it_has_alone(
    opened, responses, pass_bytes, monkeypatch
):
    monkeypatch.setattr("normprobe.reading_plan.PASS_BYTES", pass_bytes)
    seen, alone = set(), {}
    for row, ids in enumerate(responses["token_ids"]):
        with torch.no_grad():
            output = opened.model(torch.from_numpy(ids)[None], output_hidden_states=True)
        alone[row] = [states[0] for states in output.hidden_states]

    def visit(piece: Piece) -> None:
        assert piece.h.dtype == torch.float32
        assert piece.h.shape == (len(piece.position), 32)
        for h, row, position in zip(piece.h, piece.response_index, piece.position, strict=True):
            if piece.layer == 3:  # the last of them is after the final norm
                h = opened.anatomy.final_norm(h)
            torch.testing.assert_close(h, alone[row][piece.layer + 1][position], rtol=1e-4, atol=1e-5)
            seen.add((piece.layer, int(row), int(position)))

    stream_states(opened, responses, ["sae", "measure"], visit)
    chosen = [(i, n) for i, n in enumerate(LENGTHS) if SPLITS[i] != "select"]
    assert seen == {(layer, i, p) for layer in range(4) for i, n in chosen for p in range(n)}


def test_positions_ascend_within_each_response_of_a_piece(opened, responses):
    found = []
    stream_states(opened, responses, ["sae"], found.append)
    assert [piece.layer for piece in found] == [0, 1, 2, 3]
    for piece in found:
        starts = np.flatnonzero(piece.position == 0)
        assert len(starts) == len(set(piece.response_index))
        for part, row in zip(np.split(piece.position, starts[1:]), piece.response_index[starts], strict=True):
            assert part.tolist() == list(range(LENGTHS[row]))
        assert piece.valid.sum() == len(piece.position)


def test_the_states_can_be_trained_on(opened, responses):
    weight = torch.ones(32, requires_grad=True)
    found: list[Piece] = []
    stream_states(opened, responses, ["sae"], found.append)
    (found[0].h @ weight).square().sum().backward()
    assert weight.grad is not None
    assert not found[0].h.requires_grad


def test_a_layer_is_gone_before_the_next_comes(opened, responses):
    before: list[weakref.ref[torch.Tensor]] = []

    def visit(piece: Piece) -> None:
        assert all(reference() is None for reference in before)
        before.append(weakref.ref(piece.h))

    stream_states(opened, responses, ["sae", "select"], visit)
    assert len(before) == 4


@pytest.mark.parametrize("pass_bytes", [1, 2**27])  # chunks of 16 tokens over a cache, and all at once
def test_states_that_the_visitor_returns_are_what_later_layers_read(
    opened, responses, pass_bytes, monkeypatch
):
    monkeypatch.setattr("normprobe.reading_plan.PASS_BYTES", pass_bytes)
    found = {}

    def visit(piece: Piece) -> torch.Tensor | None:
        if piece.layer == 3:
            for h, *key in zip(piece.h, piece.response_index, piece.position, strict=True):
                found[tuple(map(int, key))] = h
        return 2 * piece.h + 1 if piece.layer == 1 else None

    stream_states(opened, responses, ["measure"], visit)
    handle = opened.blocks[1].register_forward_hook(lambda _module, _inputs, output: 2 * output + 1)
    states = []
    opened.blocks[3].register_forward_hook(lambda _module, _inputs, output: states.append(output[0]))
    for row, ids in enumerate(responses["token_ids"]):
        if SPLITS[row] == "measure":
            with torch.no_grad():
                opened.model(torch.from_numpy(ids)[None])
            for position, h in enumerate(states[-1]):
                torch.testing.assert_close(found[row, position], h, rtol=1e-4, atol=1e-5)
    handle.remove()


def test_the_plan_sorts_by_length_and_fills_batches_by_padded_tokens(responses):
    def plan(tokens: int) -> list[list[int]]:
        return [rows.tolist() for rows in batch_plan(responses, ["sae", "measure"], tokens)]

    assert plan(18) == [[4, 3, 6], [0], [2]]
    assert plan(17) == [[4, 3], [6], [0], [2]]
    assert plan(1) == [[4], [3], [6], [0], [2]]
    assert plan(85) == [[4, 3, 6, 0, 2]]
    assert batch_plan(responses, [], 2) == []


def test_padding_is_on_the_right(responses):
    ids, mask = pad(responses["token_ids"].iloc[[1, 5]].tolist())
    assert mask.sum(axis=1).tolist() == [4, 12]
    assert (np.diff(mask, axis=1) <= 0).all()
    assert ids[0, :4].tolist() == responses["token_ids"].iloc[1].tolist()


def test_offsets_lead_to_the_rows_of_the_token_table(responses):
    offsets, n = token_offsets(responses, ["select", "measure"])
    assert n == 4 + 4 + 12 + 6
    assert offsets.tolist() == [-1, 0, -1, 4, -1, 8, 20]
