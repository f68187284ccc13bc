"""Controls of the causal experiment: which of direction and norm each keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_fixture import apply, random_rows, seeds

from normprobe.policies.controls.causal import DirectionOnly, Rotation
from normprobe.policies.ops import turn
from normprobe.policies.rows import Rows, norms
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import FixedThreshold


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0.01, 100))
def test_direction_only_keeps_the_direction_and_sets_the_norm(
    seed: int, threshold: float, ordinary: float
) -> None:
    rows = random_rows(seed)
    tau = FixedThreshold({3: threshold})
    hidden, chosen = apply(DirectionOnly(tau, {3: ordinary}), rows, 3)
    assert torch.equal(chosen, apply(Suppression(tau), rows, 3)[1])
    assert torch.equal(hidden[~chosen], rows.hidden[~chosen])
    cosine = torch.nn.functional.cosine_similarity(hidden, rows.hidden)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        norms(hidden)[chosen], torch.full((int(chosen.sum()),), ordinary), rtol=1e-5, atol=0
    )


def test_a_zero_state_has_no_direction_and_stays() -> None:
    rows = Rows(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([0]))
    hidden, chosen = apply(DirectionOnly(FixedThreshold({0: 1.0}), {0: 2.0}), rows, 0, ["a"])
    assert not chosen.any()
    assert torch.equal(hidden, rows.hidden)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0, 1), st.sampled_from([2, 8, 200]))
def test_a_rotation_keeps_the_norm_and_moves_as_far_as_the_suppression(
    seed: int, threshold: float, scale: float, d: int
) -> None:
    rows = random_rows(seed, d=d)
    tau = FixedThreshold({3: threshold})
    shortened, wanted = apply(Suppression(tau, scale), rows, 3)
    hidden, chosen = apply(Rotation(tau, seed, scale), rows, 3)
    assert torch.equal(chosen, wanted)
    assert torch.equal(hidden[~chosen], rows.hidden[~chosen])
    torch.testing.assert_close(norms(hidden), norms(rows.hidden), rtol=1e-5, atol=0)
    distance = norms(hidden - rows.hidden)
    torch.testing.assert_close(distance, norms(shortened - rows.hidden), rtol=1e-5, atol=1e-5)


def test_the_rotation_depends_on_seed_request_layer_and_step_alone() -> None:
    hidden = torch.ones(4, 6)
    rows = Rows(hidden, torch.tensor([0, 1, 0, 0]), torch.tensor([2, 2, 3, 2]))
    tau = FixedThreshold({1: 1.0, 2: 1.0})
    turned, _ = apply(Rotation(tau, 7), rows, 1, ["a", "b"])
    assert torch.equal(turned[0], turned[3])
    others = [
        turned[1],
        turned[2],
        apply(Rotation(tau, 7), rows, 2, ["a", "b"])[0][0],
        apply(Rotation(tau, 8), rows, 1, ["a", "b"])[0][0],
    ]
    assert all(float((other - turned[0]).norm()) > 0.1 for other in others)
    moved = Rows(hidden, torch.tensor([1, 0, 1, 1]), rows.step)
    assert torch.equal(apply(Rotation(tau, 7), moved, 1, ["b", "a"])[0], turned)


def test_rotations_have_no_preferred_direction() -> None:
    """The mean of 4,000 turns in 20 dimensions points along h: across it each coordinate is 0 ± 4.5 standard errors."""
    d, n = 20, 4000
    hidden = torch.zeros(n, d)
    hidden[:, 0] = 1.0
    rows = Rows(hidden, torch.zeros(n, dtype=torch.long), torch.arange(n))
    turned, _ = apply(Rotation(FixedThreshold({0: 0.5}), 0), rows, 0, ["a"])
    mean, error = turned.mean(0), (1 - 0.595**2) ** 0.5 / (d - 1) ** 0.5 / n**0.5
    assert float(mean[0]) == pytest.approx(1 - 0.9**2 / 2)  # cos of a chord of 0.9
    assert (mean[1:].abs() < 4.5 * error).all()


def test_a_turned_zero_state_stays_zero() -> None:
    assert torch.equal(turn(torch.zeros(1, 4), torch.ones(1, 4), torch.ones(1, 1)), torch.zeros(1, 4))
