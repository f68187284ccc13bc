"""The streaming threshold against exact quantiles, on streams that break other estimators too."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_fixture import profile

from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.histograms import Histograms
from normprobe.policies.threshold import BINS, AdaptiveThreshold, FixedThreshold

CPU = torch.device("cpu")
LAYERS = (0, 2)
NEXT_TO_NO_PRIOR = 1e-6
K = 1.5
ROUNDING = 1e-4
"""Of norms in float32 logarithms, relative: which bin a norm next to an edge falls in."""

seeds = st.integers(0, 2**31 - 1)


def width(threshold: AdaptiveThreshold, layer: int) -> float:
    """A bin's relative width: by how much a quartile may be off."""
    at = threshold.layers.index(layer)
    return (threshold.high[at] / threshold.low[at]) ** (1 / BINS) - 1


def show(state: Histograms, norms: np.ndarray | list[float], slot: int = 0, layer: int = 2) -> None:
    """A request shows these norms, one per pass."""
    for norm in norms:
        state.observe(layer, torch.tensor([slot]), torch.tensor([norm]).float(), torch.tensor([True]))
        state.finish()


def tau(state: Histograms, slot: int = 0, layer: int = 2) -> float:
    return float(state.tau(layer, torch.tensor([slot])))


def fence(first: float, third: float) -> float:
    return third + K * max(third - first, 1e-3)


def exact(stream: np.ndarray) -> float:
    return fence(*(float(q) for q in np.quantile(stream, [0.25, 0.75], method="inverted_cdf")))


def bound(stream: np.ndarray, w: float) -> float:
    """Both the exact quartile and its estimate lie in one bin, so each is off by w · Q at most, and τ by this much."""
    first, third = np.quantile(stream, [0.25, 0.75], method="inverted_cdf")
    return float((w + ROUNDING) * (third + K * (first + third)))


def make_streams() -> dict[str, np.ndarray]:
    """600 norms each."""
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
        "a step up": np.repeat([20.0, 80.0], 300) + rng.normal(0, 1, 600),
    }


STREAMS = make_streams()


@pytest.fixture(scope="module")
def estimates() -> tuple[AdaptiveThreshold, dict[str, float]]:
    """τ after each stream, with next to no prior; all streams at once, one request each."""
    threshold = AdaptiveThreshold.of(profile(), LAYERS, prior_tokens=NEXT_TO_NO_PRIOR)
    state = threshold.start(len(STREAMS), CPU)
    slot, yes = torch.arange(len(STREAMS)), torch.ones(len(STREAMS), dtype=torch.bool)
    for norms in np.stack(list(STREAMS.values()), axis=1):
        state.observe(2, slot, torch.from_numpy(norms).float(), yes)
        state.finish()
    return threshold, dict(zip(STREAMS, state.tau(2, slot).tolist(), strict=True))


@pytest.mark.parametrize("name", STREAMS)
def test_tau_is_right_to_a_bin_on_any_stream(
    estimates: tuple[AdaptiveThreshold, dict[str, float]], name: str
) -> None:
    threshold, found = estimates
    assert abs(found[name] - exact(STREAMS[name])) <= bound(STREAMS[name], width(threshold, 2))
    assert width(threshold, 2) < 0.04


@settings(max_examples=25)
@given(seeds, st.integers(1, 40), st.floats(0.0, 1.0))
def test_tau_is_right_to_a_bin_for_few_tokens_and_ties(seed: int, n: int, tied: float) -> None:
    rng = np.random.default_rng(seed)
    stream = np.where(rng.random(n) < tied, 25.0, np.exp(rng.uniform(np.log(5), np.log(200), n)))
    threshold = AdaptiveThreshold.of(profile(), LAYERS, prior_tokens=NEXT_TO_NO_PRIOR)
    state = threshold.start(1, CPU)
    show(state, stream)
    assert abs(tau(state) - exact(stream)) <= bound(stream, width(threshold, 2))


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


def test_the_p_square_of_this_file_works_where_it_is_meant_to() -> None:
    stream = np.random.default_rng(0).normal(50, 10, 5000)
    for level in (0.25, 0.75):
        assert p_square(stream, level) == pytest.approx(float(np.quantile(stream, level)), rel=0.01)


def test_p_square_breaks_the_bound_on_sorted_streams_and_its_worst_error_is_larger(
    estimates: tuple[AdaptiveThreshold, dict[str, float]],
) -> None:
    threshold, found = estimates
    ours, theirs = {}, {}
    for name, stream in STREAMS.items():
        ours[name] = abs(found[name] - exact(stream)) / exact(stream)
        theirs[name] = abs(fence(p_square(stream, 0.25), p_square(stream, 0.75)) - exact(stream)) / exact(
            stream
        )
    for name in ("ascending", "descending"):
        assert theirs[name] * exact(STREAMS[name]) > bound(STREAMS[name], width(threshold, 2))
        assert ours[name] < theirs[name]
    assert max(ours.values()) < max(theirs.values()) / 5, (ours, theirs)


def mixture_quartiles(
    own: np.ndarray, prior_tokens: float, of: LayerProfile, layer: int
) -> tuple[float, float]:
    """Q1 and Q3 of the request's tokens, weight 1 each, and 100,000 tokens placed as the profile's distribution is."""
    quantiles = np.array(of.quantiles_with_sinks["think"][layer])
    n = 100_000
    pseudo = np.interp((np.arange(n) + 0.5) / n, of.quantile_levels, quantiles)
    values = np.concatenate([own, pseudo])
    weights = np.concatenate([np.ones(len(own)), np.full(n, prior_tokens / n)])
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    first, third = values[order][np.searchsorted(share, [0.25, 0.75])]
    return float(first), float(third)


@settings(max_examples=20)
@given(seeds, st.integers(0, 40), st.floats(1.0, 200.0))
def test_tau_is_that_of_the_requests_tokens_mixed_with_the_prior(
    seed: int, n: int, prior_tokens: float
) -> None:
    own = 45 * np.exp(np.random.default_rng(seed).normal(0, 0.4, n))
    threshold = AdaptiveThreshold.of(profile(), LAYERS, prior_tokens=prior_tokens)
    state = threshold.start(1, CPU)
    show(state, own)
    first, third = mixture_quartiles(own, prior_tokens, profile(), 2)
    assert abs(tau(state) - fence(first, third)) <= (width(threshold, 2) + ROUNDING) * (
        third + K * (first + third)
    )


def test_it_starts_at_the_profiles_fence_and_leaves_it_as_tokens_come() -> None:
    state = AdaptiveThreshold.of(profile(), LAYERS).start(1, CPU)
    start = tau(state)
    assert start == pytest.approx(profile().tau[2], rel=0.1)
    shifted = 60 * np.exp(np.random.default_rng(2).normal(0, 0.1, 400))
    show(state, shifted[:20])
    early = tau(state)
    show(state, shifted[20:])
    assert abs(tau(state) - exact(shifted)) < abs(early - exact(shifted)) < abs(start - exact(shifted))


def test_norms_beyond_the_bins_count_at_the_ends() -> None:
    threshold = AdaptiveThreshold.of(profile(), LAYERS, prior_tokens=NEXT_TO_NO_PRIOR)
    low, high = threshold.low[1], threshold.high[1]
    state = threshold.start(2, CPU)
    show(state, [1e9, float("inf"), high * 2], slot=0)
    show(state, [0.0, 1e-30, low / 2], slot=1)
    w = width(threshold, 2)
    assert high / (1 + w) < tau(state, 0) <= high * (1 + K * w) * (1 + ROUNDING)
    assert low * (1 - ROUNDING) < tau(state, 1) <= low * (1 + w * (1 + K)) * (1 + ROUNDING)


@given(seed=seeds, n=st.integers(1, 12))
def test_order_company_and_slot_do_not_change_a_bit(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    stream = torch.from_numpy(30 * np.exp(rng.normal(0, 0.5, (n, 3)))).float()
    threshold = AdaptiveThreshold.of(profile(), LAYERS)
    together, alone = threshold.start(3, CPU), threshold.start(1, CPU)
    for row in stream:
        together.observe(2, torch.arange(3), row, torch.ones(3, dtype=torch.bool))
        together.finish()
    show(alone, stream[torch.from_numpy(rng.permutation(n)), 1].numpy())
    assert torch.equal(together.tau(2, torch.tensor([1])), alone.tau(2, torch.tensor([0])))


@given(seed=seeds)
def test_layers_seen_together_one_by_one_or_in_part_end_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    norms = {layer: torch.from_numpy(10 * np.exp(rng.normal(layer, 0.5, (5, 2)))).float() for layer in LAYERS}
    threshold, slot, yes = (
        AdaptiveThreshold.of(profile(), LAYERS),
        torch.arange(2),
        torch.tensor([True, True]),
    )
    at_once, in_part = threshold.start(2, CPU), threshold.start(2, CPU)
    for step in range(5):
        for layer in LAYERS:
            at_once.observe(layer, slot, norms[layer][step], yes)
        at_once.finish()
    for layer in LAYERS[::-1]:
        before = [in_part.tau(other, slot).clone() for other in LAYERS if other != layer]
        for step in range(5):
            in_part.observe(layer, slot, norms[layer][step], yes)
            in_part.finish()
        assert all(
            torch.equal(in_part.tau(other, slot), old)
            for other, old in zip([other for other in LAYERS if other != layer], before, strict=True)
        )
    for layer in LAYERS:
        assert torch.equal(at_once.tau(layer, slot), in_part.tau(layer, slot))


@given(seed=seeds)
def test_rows_that_do_not_count_leave_no_trace(seed: int) -> None:
    """Padding, prompt tokens and NaN norms, however many, whether or not someone calls padding eligible."""
    rng = np.random.default_rng(seed)
    threshold = AdaptiveThreshold.of(profile(), LAYERS)
    state, clean = threshold.start(3, CPU), threshold.start(3, CPU)
    for _ in range(6):
        norm = torch.from_numpy(30 * np.exp(rng.normal(0, 0.5, 3))).float()
        some = torch.from_numpy(rng.random(3) < 0.5)
        for layer in LAYERS:
            clean.observe(layer, torch.arange(3), norm, some)
            junk = torch.tensor([500.0, torch.nan, torch.inf, 0.0, 1.0, torch.nan])
            state.observe(
                layer,
                torch.cat([torch.arange(3), torch.tensor([-1, 0, 1, 2, -1, -1])]),
                torch.cat([norm, junk]),
                torch.cat([some, torch.tensor([True, True, False, False, False, True])]),
            )
        state.finish()
        clean.finish()
    every = torch.tensor([0, 1, 2])
    for layer in LAYERS:
        assert torch.equal(state.tau(layer, every), clean.tau(layer, every))
        assert state.tau(layer, torch.tensor([-1])).isfinite().all()


def test_a_reset_forgets_one_request_and_no_other() -> None:
    state = AdaptiveThreshold.of(profile(), LAYERS).start(2, CPU)
    both = torch.tensor([0, 1])
    fresh = {layer: state.tau(layer, both).clone() for layer in LAYERS}
    for layer in LAYERS:
        show(state, [90.0] * 20, slot=0, layer=layer)
        show(state, [90.0] * 20, slot=1, layer=layer)
    state.reset([0])
    for layer in LAYERS:
        after = state.tau(layer, both)
        assert after[0] == fresh[layer][0]
        assert after[1] > fresh[layer][1]
    show(state, [90.0] * 20, slot=0)
    assert tau(state, 0) == tau(state, 1)  # nothing of before was left


def test_a_tokens_own_norm_does_not_move_its_own_threshold() -> None:
    state = AdaptiveThreshold.of(profile(), LAYERS).start(1, CPU)
    before = tau(state)
    state.observe(2, torch.tensor([0]), torch.tensor([300.0]), torch.tensor([True]))
    assert tau(state) == before
    state.finish()
    assert tau(state) != before
    moved = tau(state)
    state.finish()  # and once only
    assert tau(state) == moved


def test_a_profile_without_spread_or_with_zero_norms_still_gives_a_threshold() -> None:
    n = len(profile().quantile_levels)
    for value in (0.0, 20.0):
        flat = dataclasses.replace(profile(), quantiles_with_sinks={"think": [[value] * n] * 3})
        state = AdaptiveThreshold.of(flat, LAYERS).start(1, CPU)
        assert 0.9 * value < tau(state) < 1.2 * value + 0.01
        show(state, [50.0] * 1000)
        assert tau(state) > value


def test_a_fixed_threshold_is_the_profiles_for_every_request() -> None:
    threshold = FixedThreshold.of(profile())
    assert threshold.layers == (2,)
    assert FixedThreshold.of(profile(), [2, 0]).layers == LAYERS
    state = threshold.start(2, CPU)
    state.observe(2, torch.tensor([0]), torch.tensor([1e6]), torch.tensor([True]))
    state.finish()
    state.reset([0])
    assert state.tau(2, torch.tensor([0, 1, -1])).tolist() == pytest.approx([profile().tau[2]] * 3)


SHARES = (1 / BINS,) * BINS


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FixedThreshold({1: 0.0}), "expected τ > 0 for layer 1, got 0.0"),
        (lambda: FixedThreshold({1: float("nan")}), "expected τ > 0"),
        (lambda: FixedThreshold({}), "at least one layer"),
        (lambda: FixedThreshold.of(profile(), [-1]), r"expected layers 0…2, got \[-1\]"),
        (lambda: AdaptiveThreshold.of(profile(), [3]), r"expected layers 0…2, got \[3\]"),
        (lambda: AdaptiveThreshold.of(profile(), []), "at least one layer"),
        (lambda: AdaptiveThreshold.of(profile(), k=float("nan")), r"expected k in \[0, 1e\+30\]"),
        (lambda: AdaptiveThreshold.of(profile(), k=-0.1), r"expected k in \[0, 1e\+30\]"),
        (lambda: AdaptiveThreshold.of(profile(), prior_tokens=0.0), "expected prior_tokens in"),
        (lambda: AdaptiveThreshold.of(profile(), prior_tokens=float("nan")), "expected prior_tokens"),
        (lambda: AdaptiveThreshold((1,), (0.0,), (9.0,), (SHARES,)), "expected 0 < low < high"),
        (lambda: AdaptiveThreshold((1, 2), (1.0,), (9.0,), (SHARES,)), "expected 0 < low < high"),
        (lambda: AdaptiveThreshold((1,), (1.0,), (9.0,), (SHARES[1:],)), f"got .* and .{BINS - 1}. shares"),
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
