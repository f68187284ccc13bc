"""The running softmax against a float64 softmax, whatever the blocks; the lens against all logits at once."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from parity_models import build

from normprobe.models.architectures import dissect
from normprobe.tracing.lens import RunningSoftmax, read_lens

logits = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(-100, 100, width=32)
)
cuts = st.lists(st.integers(1, 39), max_size=6)


def reference(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ln Σ eˡ and the entropy, in float64."""
    log_p = torch.log_softmax(scores.double(), -1)
    return torch.logsumexp(scores.double(), -1), -(log_p.exp() * log_p.clamp(min=-1e300)).sum(-1)


def run(scores: torch.Tensor, at: list[int]) -> RunningSoftmax:
    running = RunningSoftmax()
    for block in torch.tensor_split(scores.clone(), sorted({i for i in at if i < scores.shape[1]}), dim=1):
        running.add(block)
    return running


@given(scores=logits, at=cuts)
def test_blocks_of_outcomes_give_the_softmax_of_all(scores, at):
    scores = torch.from_numpy(scores)
    log_total, entropy = reference(scores)
    running = run(scores, at)
    surprisal = running.surprisal(scores[:, -1]).double()
    torch.testing.assert_close(surprisal, log_total - scores[:, -1].double(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(running.entropy.double(), entropy, rtol=1e-5, atol=1e-5)


@given(scores=logits, at=cuts, shift=st.floats(-1e3, 1e3))
def test_a_constant_added_to_all_logits_leaves_the_entropy(scores, at, shift):
    scores = torch.from_numpy(scores).double()
    torch.testing.assert_close(run(scores + shift, at).entropy, run(scores, at).entropy, rtol=1e-6, atol=1e-6)


@given(scores=logits, at=cuts)
def test_the_entropy_lies_between_zero_and_the_logarithm_of_the_outcomes(scores, at):
    entropy = run(torch.from_numpy(scores), at).entropy
    assert (entropy >= -1e-6).all()
    assert (entropy <= math.log(scores.shape[1]) + 1e-5).all()


def test_impossible_outcomes_count_nothing():
    scores = torch.tensor([[0.0, 0.0, -math.inf, -math.inf]])
    for at in ([], [2], [1, 3]):
        assert run(scores, at).entropy.item() == pytest.approx(math.log(2))


def test_what_is_no_number_is_not_hidden():
    assert run(torch.tensor([[0.0, math.nan, 1.0]]), [2]).entropy.isnan().all()


def test_a_sure_prediction_keeps_its_small_entropy():
    scores = torch.zeros(1, 50_000)
    scores[0, 7] = 40.0
    expected = reference(scores)[1].item()
    running = run(scores, [10_000, 30_000])
    assert running.entropy.item() == pytest.approx(expected, abs=1e-7)
    assert running.surprisal(scores[:, 7]).item() == pytest.approx(0.0, abs=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen3", "gemma2"])  # without and with a softcap
@pytest.mark.parametrize("scratch", [1, 40, 300, 10**6])
def test_slices_of_rows_and_vocabulary_read_what_all_logits_say(name, scratch):
    anatomy = dissect(build(name))
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(7, 32, generator=generator)
    following = torch.randint(anatomy.vocabulary, (7,), generator=generator)
    entropy, surprisal = read_lens(anatomy, h, following, scratch)
    scores = anatomy.unembed(h)
    log_total, expected = reference(scores)
    torch.testing.assert_close(entropy.double(), expected, rtol=1e-5, atol=1e-5)
    chosen = scores.gather(1, following[:, None])[:, 0]
    torch.testing.assert_close(surprisal.double(), log_total - chosen, rtol=1e-5, atol=1e-5)
