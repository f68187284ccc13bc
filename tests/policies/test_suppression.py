"""Suppression and its matched controls, as maths on rows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_fixture import REQUESTS, apply, dtypes, never, random_rows, seeds

from normprobe.errors import NormprobeError
from normprobe.policies.controls.causal import DirectionOnly, LowNormSuppression, Rotation
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.policies.rows import Rows
from normprobe.policies.suppression import Clamp, Suppression
from normprobe.policies.threshold import BINS, AdaptiveThreshold, FixedThreshold

DOSES = Doses(
    torch.ones(5, 4, 2) * torch.tensor([[1.0], [0.0], [0.5], [0.0]]),
    torch.full((5,), 4),
    (1, 2),
    tuple(REQUESTS),
)


def adaptive(layer: int) -> AdaptiveThreshold:
    """A threshold whose prior knows norms from 0.1 to 100, all sizes alike, and fades fast."""
    return AdaptiveThreshold((layer,), (0.1,), (100.0,), ((1 / BINS,) * BINS,), prior_tokens=1.0)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0, 1))
def test_exactly_the_eligible_norms_above_the_threshold_shrink(
    seed: int, threshold: float, scale: float
) -> None:
    rows = random_rows(seed)
    hidden, chosen = apply(Suppression(FixedThreshold({3: threshold}), scale), rows, 3)
    for i in range(len(rows.hidden)):
        wanted = rows.step[i] >= 0 and rows.hidden[i].norm() > threshold
        assert bool(chosen[i]) == bool(wanted)
        torch.testing.assert_close(hidden[i], rows.hidden[i] * (scale if wanted else 1.0), rtol=0, atol=0)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0, 1))
def test_a_clamp_leaves_the_same_states_at_a_fraction_of_the_threshold(
    seed: int, threshold: float, fraction: float
) -> None:
    rows = random_rows(seed)
    hidden, chosen = apply(Clamp(FixedThreshold({3: threshold}), fraction), rows, 3)
    assert torch.equal(chosen, apply(Suppression(FixedThreshold({3: threshold})), rows, 3)[1])
    for i in range(len(rows.hidden)):
        state, length = rows.hidden[i], float(rows.hidden[i].norm())
        expected = state * (fraction * threshold / length) if chosen[i] else state
        torch.testing.assert_close(hidden[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [Suppression, Clamp])
def test_an_adaptive_suppression_follows_the_norms_of_its_own_request(make) -> None:
    """A norm of 5 is high for who had norms of 1, and not for who had norms of 20; norms before the change count."""
    running = make(adaptive(1)).start(2, 4, torch.device("cpu"))
    running.reset([0, 1], ["short", "long"])
    length = torch.tensor([[1.0], [20.0]])
    for step in range(50):
        noise = 1 + 0.1 * torch.sin(torch.tensor(float(step)))
        running.apply(
            Rows(length * noise * torch.ones(2, 4) / 2, torch.arange(2), torch.full((2,), step)), 1, never
        )
        running.finish()
    rows = Rows(torch.full((2, 4), 2.5), torch.arange(2), torch.full((2,), 50))
    assert running.apply(rows, 1, never).triggered.tolist() == [True, False]
    running.finish()
    running.reset([0], ["new"])
    assert not running.apply(rows, 1, never).triggered.any()


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20))
def test_below_and_above_part_the_eligible_rows(seed: int, threshold: float) -> None:
    rows = random_rows(seed)
    _, high = apply(Suppression(FixedThreshold({0: threshold})), rows, 0)
    _, low = apply(LowNormSuppression({0: threshold}), rows, 0)
    assert not (high & low).any()
    assert torch.equal(high | low, rows.eligible)  # no drawn norm equals the threshold


@settings(deadline=None)
@given(seeds, dtypes)
def test_scale_one_and_infinite_threshold_change_no_bit(seed: int, dtype: torch.dtype) -> None:
    rows = random_rows(seed, dtype=dtype)
    assert torch.equal(apply(Suppression(FixedThreshold({0: 0.5}), scale=1.0), rows, 0)[0], rows.hidden)
    hidden, chosen = apply(Suppression(FixedThreshold({0: math.inf})), rows, 0)
    assert torch.equal(hidden, rows.hidden)
    assert not chosen.any()


@settings(deadline=None)
@given(seeds, st.integers(1, 40), dtypes)
def test_a_row_gets_the_same_bits_whatever_its_batch_mates(seed: int, n: int, dtype: torch.dtype) -> None:
    rows = random_rows(seed, dtype=dtype)
    order = torch.randperm(len(rows.hidden), generator=torch.Generator().manual_seed(seed))[:n]
    some = Rows(rows.hidden[order], rows.slot[order], rows.step[order])
    doses, tau, learning = DOSES, FixedThreshold({1: 2.0}), adaptive(1)
    for policy in (
        Suppression(tau),
        LowNormSuppression({1: 2.0}),
        Rotation(tau, seed),
        DirectionOnly(tau, {1: 1.5}),
        Suppression(learning),
        Clamp(learning),
        ReplayedSuppression(doses),
        ReplayedSuppression(doses, 0.1),
    ):
        whole_hidden, whole_chosen = apply(policy, rows, 1)
        part_hidden, part_chosen = apply(policy, some, 1)
        assert torch.equal(part_hidden, whole_hidden[order])
        assert torch.equal(part_chosen, whole_chosen[order])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Suppression(FixedThreshold({2: 0.0})), r"expected τ > 0 for layer 2, got 0\.0"),
        (lambda: Suppression(FixedThreshold({2: math.nan})), r"expected τ > 0 for layer 2, got nan"),
        (lambda: LowNormSuppression({2: math.nan}), r"expected a norm bound above 0 for layer 2"),
        (lambda: Suppression(FixedThreshold({})), r"at least one layer, got none"),
        (lambda: Suppression(FixedThreshold({2: 1.0}), scale=-0.5), r"factor in \[0, 1\], got -0\.5"),
        (lambda: Suppression(adaptive(2), math.nan), r"factor in \[0, 1\], got nan"),
        (lambda: ReplayedSuppression(DOSES, 1.5), r"factor in \[0, 1\], got 1\.5"),
        (lambda: Clamp(adaptive(2), 1.5), r"fraction of τ in \[0, 1\], got 1\.5"),
        (
            lambda: DirectionOnly(FixedThreshold({2: 1.0}), {1: 1.0}),
            r"ordinary norm .* layer 2, got None",
        ),
        (
            lambda: DirectionOnly(FixedThreshold({2: 1.0}), {2: 0.0}),
            r"ordinary norm .* layer 2, got 0\.0",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
