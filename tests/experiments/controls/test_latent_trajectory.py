"""The signals of a latent trajectory against a loop over layers and segments."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.experiments.controls.latent_trajectory import LATENT_TRAJECTORY, SEGMENT, latent_trajectory

seeds = st.integers(0, 2**31 - 1)


def random_states(seed: int, n_layers: int, n_tokens: int) -> torch.Tensor:
    return torch.randn(n_layers, n_tokens, 5, generator=torch.Generator().manual_seed(seed))


def slow(states: torch.Tensor) -> list[float]:
    """The definitions, one layer and one segment at a time, float64."""
    by_layer = []
    for of_layer in states.double():
        starts = range(0, len(of_layer), SEGMENT)
        means = [of_layer[start : start + SEGMENT].mean(dim=0).tolist() for start in starts]
        steps = [[b - a for a, b in zip(one, other, strict=True)] for one, other in pairwise(means)]
        drift = [b - a for a, b in zip(means[0], means[-1], strict=True)]
        cosines = [
            math.fsum(a * b for a, b in zip(step, drift, strict=True))
            / (math.hypot(*step) * math.hypot(*drift))
            for step in steps
        ]
        lengths = [math.hypot(*step) for step in steps]
        by_layer.append(
            (math.hypot(*drift) / len(steps), math.fsum(lengths), math.fsum(cosines) / len(cosines))
        )
    return [math.fsum(values) / len(by_layer) for values in zip(*by_layer, strict=True)]


@given(seeds, st.integers(1, 4), st.integers(SEGMENT + 1, 6 * SEGMENT))
def test_the_signals_are_those_of_a_loop(seed: int, n_layers: int, n_tokens: int) -> None:
    states = random_states(seed, n_layers, n_tokens)
    found = latent_trajectory(states)
    assert tuple(found) == LATENT_TRAJECTORY
    assert list(found.values()) == pytest.approx(slow(states), rel=1e-4, abs=1e-5)


@given(seeds, st.floats(0.1, 10))
def test_longer_states_change_more_and_are_no_better_aligned(seed: int, factor: float) -> None:
    """Why two of the three are shown by the claim and do not decide it."""
    states = random_states(seed, 2, 3 * SEGMENT)
    before, after = (list(latent_trajectory(one).values()) for one in (states, factor * states))
    assert after == pytest.approx([factor * before[0], factor * before[1], before[2]], rel=1e-4)


def test_a_straight_way_is_aligned_and_there_and_back_goes_nowhere() -> None:
    pace = torch.arange(4 * SEGMENT).float() // SEGMENT
    straight = (pace[:, None] * torch.tensor([3.0, 4.0]))[None]
    assert list(latent_trajectory(straight).values()) == pytest.approx([5, 15, 1])
    back = torch.cat([straight, straight.flip(1)], dim=1)
    net, cumulative, _ = latent_trajectory(back).values()
    assert (net, cumulative) == pytest.approx((0, 30), abs=1e-6)


@pytest.mark.parametrize("n_tokens", [0, 1, SEGMENT])
def test_one_segment_has_no_trajectory(n_tokens: int) -> None:
    assert all(math.isnan(value) for value in latent_trajectory(random_states(0, 3, n_tokens)).values())
