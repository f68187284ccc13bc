"""The streaming threshold against exact quantiles, on streams that break other estimators too."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profile_fixture import profile

from normprobe.errors import NormprobeError
from normprobe.policies.threshold import BINS, AdaptiveThreshold, FixedThreshold

CPU = torch.device("cpu")
LAYERS = (0, 2)


def width(threshold: AdaptiveThreshold, layer: int) -> float:
    """A bin's relative width: by how much a quantile may be off."""
    at = threshold.layers.index(layer)
    return (threshold.high[at] / threshold.low[at]) ** (1 / BINS) - 1


def feed(threshold: AdaptiveThreshold, stream: np.ndarray, layer: int = 2) -> float:
    """τ after a request has shown these norms, one per pass."""
    state = threshold.start(1, CPU)
    slot, yes = torch.tensor([0]), torch.tensor([True])
    for norm in stream:
        state.see(layer, slot, torch.tensor([norm], dtype=torch.float32), yes)
        state.finish()
    return float(state.tau(layer, slot))


def exact(stream: np.ndarray, k: float = 1.5) -> float:
    lower, upper = np.quantile(stream, [0.25, 0.75], method="inverted_cdf")
    return float(upper + k * max(upper - lower, 1e-3))


def streams() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    steady = 30 * np.exp(rng.normal(0, 0.3, 600))
    return {
        "stationary": steady,
        "bimodal": np.where(rng.random(600) < 0.5, 20.0, 45.0) * np.exp(rng.normal(0, 0.02, 600)),
        "drifting": np.linspace(15, 60, 600) * np.exp(rng.normal(0, 0.05, 600)),
        "ascending": np.sort(steady),
        "descending": np.sort(steady)[::-1],
        "alternating extremes": np.tile([8.0, 110.0], 300),
        "constant": np.full(600, 33.0),
    }


@pytest.mark.parametrize("name", streams())
def test_quantiles_are_right_to_a_bin_on_any_stream(name: str) -> None:
    """With next to no prior. Each quartile is off by a bin at most, so τ by (1 + 2k) bins of the larger quartile."""
    stream = streams()[name]
    threshold = AdaptiveThreshold.of(profile(), LAYERS, prior_tokens=1e-6)
    bound = (1 + 2 * 1.5) * width(threshold, 2) * float(np.quantile(stream, 0.75)) + 1e-3
    assert abs(feed(threshold, stream) - exact(stream)) <= bound
    assert width(threshold, 2) < 0.06


def p_square(stream: np.ndarray, level: float) -> float:
    """The P² estimate (Jain & Chlamtac 1985) of a quantile: what the reference code uses."""
    q = np.sort(stream[:5].astype(float))
    n = np.arange(1.0, 6.0)
    want = np.array([1, 1 + 2 * level, 1 + 4 * level, 3 + 2 * level, 5])
    step = np.array([0, level / 2, level, (1 + level) / 2, 1])
    for x in stream[5:]:
        q[0], q[4] = min(q[0], x), max(q[4], x)
        cell = int(np.clip(np.searchsorted(q, x, side="right"), 1, 4))
        n[cell:] += 1
        want += step
        for i in (1, 2, 3):
            gap = want[i] - n[i]
            if (gap >= 1 and n[i + 1] - n[i] > 1) or (gap <= -1 and n[i - 1] - n[i] < -1):
                s = np.sign(gap)
                rise = (n[i] - n[i - 1] + s) * (q[i + 1] - q[i]) / (n[i + 1] - n[i])
                fall = (n[i + 1] - n[i] - s) * (q[i] - q[i - 1]) / (n[i] - n[i - 1])
                new = q[i] + s / (n[i + 1] - n[i - 1]) * (rise + fall)
                if not q[i - 1] < new < q[i + 1]:
                    j = i + int(s)
                    new = q[i] + s * (q[j] - q[i]) / (n[j] - n[i])
                q[i], n[i] = new, n[i] + s
    return float(q[2])


def test_its_worst_error_is_smaller_than_that_of_p_square() -> None:
    ours, theirs = {}, {}
    for name, stream in streams().items():
        upper, lower = p_square(stream, 0.75), p_square(stream, 0.25)
        truth = exact(stream)
        theirs[name] = abs(upper + 1.5 * (upper - lower) - truth) / truth
        threshold = AdaptiveThreshold.of(profile(), LAYERS, prior_tokens=1e-6)
        ours[name] = abs(feed(threshold, stream) - truth) / truth
    assert max(ours.values()) < max(theirs.values()), (ours, theirs)


def test_it_starts_at_the_profiles_fence_and_leaves_it_as_tokens_come() -> None:
    threshold = AdaptiveThreshold.of(profile(), LAYERS)
    start = feed(threshold, np.array([]))
    assert start == pytest.approx(profile().tau[2], rel=0.1)
    shifted = 60 * np.exp(np.random.default_rng(2).normal(0, 0.1, 400))
    early, late = feed(threshold, shifted[:20]), feed(threshold, shifted)
    assert abs(late - exact(shifted)) < abs(early - exact(shifted)) < abs(start - exact(shifted))


@given(seed=st.integers(0, 999), n=st.integers(1, 12))
def test_order_and_company_do_not_change_a_bit(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    stream = torch.from_numpy(30 * np.exp(rng.normal(0, 0.5, (n, 3))).astype(np.float32))
    threshold = AdaptiveThreshold.of(profile(), LAYERS)
    together, alone = threshold.start(3, CPU), threshold.start(1, CPU)
    for row in stream:
        together.see(2, torch.arange(3), row, torch.ones(3, dtype=torch.bool))
        together.finish()
    for i in rng.permutation(n):
        alone.see(2, torch.tensor([0]), stream[i, 1:2], torch.tensor([True]))
        alone.finish()
    assert torch.equal(together.tau(2, torch.tensor([1])), alone.tau(2, torch.tensor([0])))


def test_padding_and_nan_do_not_count_and_a_reset_forgets() -> None:
    threshold = AdaptiveThreshold.of(profile(), LAYERS)
    state = threshold.start(2, CPU)
    fresh = state.tau(2, torch.tensor([0, 1])).clone()
    slot = torch.tensor([0, 1, -1])
    state.see(2, slot, torch.tensor([500.0, torch.nan, 500.0]), torch.tensor([False, True, False]))
    state.finish()
    assert torch.equal(state.tau(2, torch.tensor([0, 1])), fresh)
    for _ in range(20):
        state.see(2, slot, torch.tensor([90.0, 90.0, 90.0]), torch.tensor([True, True, False]))
        state.finish()
    assert (state.tau(2, torch.tensor([0, 1])) > fresh).all()
    state.reset([0])
    after = state.tau(2, torch.tensor([0, 1]))
    assert after[0] == fresh[0]
    assert after[1] > fresh[1]


def test_a_tokens_own_norm_does_not_move_its_own_threshold() -> None:
    state = AdaptiveThreshold.of(profile(), LAYERS).start(1, CPU)
    before = state.tau(2, torch.tensor([0])).clone()
    state.see(2, torch.tensor([0]), torch.tensor([300.0]), torch.tensor([True]))
    assert torch.equal(state.tau(2, torch.tensor([0])), before)
    state.finish()
    assert not torch.equal(state.tau(2, torch.tensor([0])), before)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FixedThreshold({1: 0.0}), "expected τ > 0 for layer 1, got 0.0"),
        (lambda: FixedThreshold({1: float("nan")}), "expected τ > 0"),
        (lambda: FixedThreshold({}), "at least one layer"),
        (lambda: AdaptiveThreshold.of(profile(), [3]), r"expected layers 0…2, got \[3\]"),
        (lambda: AdaptiveThreshold.of(profile(), []), "at least one layer"),
        (lambda: AdaptiveThreshold.of(profile(), k=float("nan")), "expected k ≥ 0"),
        (lambda: AdaptiveThreshold.of(profile(), prior_tokens=0.0), "prior_tokens > 0"),
        (
            lambda: AdaptiveThreshold.of(dataclasses.replace(profile(), quantiles_with_sinks={})),
            "a layer profile of mode think",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
