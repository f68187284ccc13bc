"""The deep-thinking ratio against all layers of every token one by one, and the vote that it decides."""

import math

import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from normprobe.experiments.controls import deep_thinking as module
from normprobe.experiments.controls.deep_thinking import (
    DEEP_THINKING,
    LATE,
    PREFIX,
    SETTLED,
    deep_thinking,
    divergence,
    settles_late,
)
from normprobe.experiments.controls.think_at_n import going_on, pick_deepest, tokens_of_prefixes

seeds = st.integers(0, 2**31 - 1)
D = 6


class Lens:
    """A final norm and an unembedding of random weights; it counts the rows that it reads."""

    def __init__(self, seed: int, vocab: int) -> None:
        self.weight = torch.randn(D, vocab, generator=torch.Generator().manual_seed(seed))
        self.n_read = 0

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        self.n_read += len(h)
        return 3 * h / h.norm(dim=-1, keepdim=True) @ self.weight


def trajectory(seed: int, n_layers: int, n_tokens: int) -> torch.Tensor:
    """States [layer, token, d] that come the nearer to the last, the deeper, each token at a pace of its own."""
    generator = torch.Generator().manual_seed(seed)
    first, last = torch.randn(2, n_tokens, D, generator=generator)
    pace = torch.rand(n_tokens, 1, generator=generator) * 6
    depth = torch.linspace(0, 1, n_layers)[:, None, None] ** pace
    return torch.lerp(first[None], last[None], depth)


def slow_divergence(p: list[float], q: list[float]) -> float:
    """½ KL(p ‖ m) + ½ KL(q ‖ m) with the mean m, bits."""
    mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    parts = [a * math.log2(a / m) for a, m in zip(p + q, mean * 2, strict=True) if a > 0]
    return math.fsum(parts) / 2


def slow(distributions: torch.Tensor) -> tuple[list[bool], float]:
    """By the book: which tokens settle late, from the distributions [layer, token, outcome]; and the nearest tie."""
    late, nearest, n_layers = [], math.inf, len(distributions)
    for of_token in distributions.double().transpose(0, 1).tolist():
        far = [slow_divergence(p, of_token[-1]) for p in of_token]
        lowest = [min(far[: layer + 1]) for layer in range(n_layers)]
        depth = next(number for number, value in enumerate(lowest, start=1) if value <= SETTLED)
        late.append(depth >= math.ceil(LATE * n_layers))
        nearest = min([nearest, *(abs(value - SETTLED) for value in far)])
    return late, nearest


@given(seeds, st.integers(1, 14), st.integers(1, 20), st.integers(2, 30))
def test_early_layers_alone_say_what_all_layers_say(
    seed: int, n_layers: int, n_tokens: int, vocab: int
) -> None:
    states, lens = trajectory(seed, n_layers, n_tokens), Lens(seed, vocab)
    logits = torch.stack([lens(of_layer) for of_layer in states])
    wanted, nearest = slow(torch.softmax(logits.double(), dim=-1))
    assume(nearest > 1e-4)  # no tie that rounding decides
    found = settles_late(lens, list(states), logits[-1])
    assert found.tolist() == wanted
    # Longer states say the same, since the lens norms them.
    longer = settles_late(lens, [7 * of_layer for of_layer in states], logits[-1])
    assert torch.equal(longer, found)


def test_a_settled_token_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    states, lens = list(trajectory(3, 12, 50)), Lens(3, 20)
    logits = lens(states[-1])
    lens.n_read = 0
    assert not settles_late(lens, 12 * states[-1:], logits).any()
    assert lens.n_read == 50
    whole = settles_late(lens, states, logits)
    assert 0 < whole.sum() < 50
    monkeypatch.setattr(module, "AT_ONCE", 60)  # three tokens at a time
    assert torch.equal(settles_late(lens, states, logits), whole)


@given(seeds, st.integers(2, 40), st.floats(0.1, 30))
def test_the_divergence_is_that_of_a_loop_symmetric_and_within_its_bounds(
    seed: int, vocab: int, sharpness: float
) -> None:
    logits = torch.randn(2, 5, vocab, generator=torch.Generator().manual_seed(seed)) * sharpness
    log_p, log_q = torch.log_softmax(logits, dim=-1)
    found = divergence(log_p, log_q)
    pairs = zip(log_p.double().exp().tolist(), log_q.double().exp().tolist(), strict=True)
    assert found.tolist() == pytest.approx([slow_divergence(p, q) for p, q in pairs], abs=1e-5)
    assert torch.allclose(found, divergence(log_q, log_p), atol=1e-6)
    assert ((found > -1e-6) & (found < 1 + 1e-6)).all()


def test_disjoint_distributions_are_a_bit_apart() -> None:
    one, other = torch.log(torch.tensor([[[0.5, 0.5, 0.0]], [[0.0, 0.0, 1.0]]]))
    assert float(divergence(one, other)) == pytest.approx(1)
    assert float(divergence(one, one)) == 0


def test_the_ratio_is_a_share_of_all_tokens_and_of_the_first() -> None:
    late = torch.zeros(2 * PREFIX, dtype=torch.bool)
    late[: PREFIX // 5] = True
    assert list(deep_thinking(late).values()) == pytest.approx([0.1, 0.2])
    assert deep_thinking(late[:4]) == dict.fromkeys(DEEP_THINKING, 1.0)
    assert set(deep_thinking(late[:0]).values()) == {-math.inf}


def test_think_at_n_lets_the_deeper_half_vote_and_stops_the_others() -> None:
    five = pd.DataFrame(
        {
            "answer": [*"xyxyx"],
            "n_tokens": [10, 60, 70, 80, 200],
            "deep_thinking_prefix": [0.1, 0.4, 0.4, 0.9, 0.3],
            "deep_thinking_ratio": [0.9, 0.1, 0.8, 0.1, 0.1],
        }
    )
    assert going_on(five, "deep_thinking_prefix") == [1, 2, 3]
    assert pick_deepest(five, "deep_thinking_prefix") == 1  # y has two of three votes
    assert going_on(five, "deep_thinking_ratio") == [0, 1, 2]  # of equals the first
    assert pick_deepest(five, "deep_thinking_ratio") == 0
    assert tokens_of_prefixes(five) == 10 + 60 + 70 + 80 + PREFIX
    silent = five.head(2).assign(answer=[None, "x"], deep_thinking_prefix=[0.9, 0.1])
    assert pick_deepest(silent, "deep_thinking_prefix") == 0  # who was stopped gives no answer
