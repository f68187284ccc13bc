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
from normprobe.tracing.stream import batch_plan, pad, stream_states, token_offsets

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


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_every_token_comes_once_with_the_state_that_it_has_alone(opened, responses, batch_size):
    seen = set()
    for batch in stream_states(opened, responses, ["sae", "measure"], batch_size):
        assert batch.states.dtype == torch.float32
        assert batch.states.shape == (4, len(batch.position), 32)
        for i, (row, position) in enumerate(zip(batch.response_index, batch.position, strict=True)):
            ids = torch.from_numpy(responses["token_ids"].iloc[row][: position + 1])[None]
            with torch.no_grad():
                alone = opened.model(ids, output_hidden_states=True).hidden_states
            # The last of them is after the final norm.
            torch.testing.assert_close(
                batch.states[:-1, i], torch.stack(alone[1:-1])[:, 0, -1], rtol=1e-4, atol=1e-5
            )
            torch.testing.assert_close(
                opened.anatomy.final_norm(batch.states[-1, i]), alone[-1][0, -1], rtol=1e-4, atol=1e-5
            )
            seen.add((int(row), int(position)))
    expected = {(i, p) for i, n in enumerate(LENGTHS) if SPLITS[i] != "select" for p in range(n)}
    assert seen == expected


def test_positions_ascend_within_each_response_of_a_batch(opened, responses):
    for batch in stream_states(opened, responses, ["sae"], 2):
        starts = np.flatnonzero(batch.position == 0)
        assert len(starts) == len(set(batch.response_index))
        for part, row in zip(np.split(batch.position, starts[1:]), batch.response_index[starts], strict=True):
            assert part.tolist() == list(range(LENGTHS[row]))


def test_the_states_can_be_trained_on(opened, responses):
    weight = torch.ones(32, requires_grad=True)
    batch = next(stream_states(opened, responses, ["sae"], 2))
    (batch.states @ weight).square().sum().backward()
    assert weight.grad is not None
    assert not batch.states.requires_grad


def test_a_batch_is_gone_before_the_next_is_made(opened, responses):
    stream = stream_states(opened, responses, ["sae", "select"], 2)
    batch = next(stream)
    states = weakref.ref(batch.states)
    del batch
    assert states() is None
    next(stream)


def test_the_plan_sorts_by_length_and_leaves_other_splits_out(responses):
    plan = batch_plan(responses, ["sae", "measure"], 2)
    assert [rows.tolist() for rows in plan] == [[4, 3], [6, 0], [2]]
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
