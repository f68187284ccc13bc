from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from normprobe.stats.bootstrap import (
    bca_interval,
    bootstrap,
    bootstrap_weights,
    mean_interval,
    percentile_interval,
    weighted_means,
)
from normprobe.stats.estimate import Estimate


def of_means(
    per_problem: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    replicates: int = 2000,
) -> Estimate:
    """The bootstrap of a statistic of per-problem means."""

    def of_weights(weights: np.ndarray) -> np.ndarray:
        return statistic(weighted_means(weights, per_problem))

    return bootstrap(len(per_problem), of_weights, rng, unit="", replicates=replicates)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_resample_draws_as_many_problems_as_there_are(n: int, seed: int) -> None:
    weights = bootstrap_weights(n, 50, np.random.default_rng(seed))
    assert (weights.sum(axis=1) == n).all()
    assert (weights >= 0).all()


def test_the_same_seed_gives_the_same_interval_and_another_seed_does_not() -> None:
    values = np.random.default_rng(0).exponential(size=30)
    first, again, other = (
        mean_interval(values, np.random.default_rng(seed), unit="nats") for seed in (1, 1, 2)
    )
    assert first == again
    assert first.interval != other.interval


def test_weighted_means_repeat_the_problems_they_count() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 3, 2))
    weights = bootstrap_weights(7, 20, rng)
    for row, mean in zip(weights.astype(int), weighted_means(weights, values), strict=True):
        np.testing.assert_allclose(mean, np.repeat(values, row, axis=0).mean(axis=0), atol=1e-12)


def test_a_difference_is_resampled_jointly() -> None:
    """A control that differs by a constant leaves no uncertainty in the difference, however noisy both are."""
    model = np.random.default_rng(0).normal(scale=10, size=50)
    both = np.stack([model, model - 0.5], axis=1)
    estimate = of_means(both, lambda m: m[:, 0] - m[:, 1], np.random.default_rng(1))
    assert estimate.interval == pytest.approx((0.5, 0.5), abs=1e-9)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_intervals_of_a_mean_and_of_a_ratio_cover_as_often_as_they_promise(draw: str) -> None:
    rng = np.random.default_rng(5)
    experiments, n = 1000, 60
    covered = np.zeros(2)
    for _ in range(experiments):
        x = getattr(rng, draw)(size=n) + 3
        truth = 3.0 if draw == "normal" else 4.0
        pair = np.stack([x, rng.uniform(1, 2, n)], axis=1)
        mean = of_means(pair, lambda m: m[:, 0], rng, 500).interval
        ratio = of_means(pair, lambda m: m[:, 0] / m[:, 1], rng, 500).interval
        covered += [mean[0] <= truth <= mean[1], ratio[0] <= truth / 1.5 <= ratio[1]]
    share = covered / experiments
    assert ((share >= 0.93) & (share <= 0.97)).all(), share


def test_bca_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = of_means(values, lambda m: m, np.random.default_rng(2), 20_000)
    assert ours.interval == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours.value == pytest.approx(values.mean())


def test_what_is_not_finite_has_no_interval_instead_of_a_wrong_one() -> None:
    values = np.array([1.0, np.nan, 2.0])
    assert np.isnan(mean_interval(values, np.random.default_rng(0), unit="").interval).all()
    assert np.isnan(mean_interval(np.array([1.0]), np.random.default_rng(0), unit="").interval).all()
    assert np.isnan(mean_interval(np.array([]), np.random.default_rng(0), unit="").value)
    assert np.isnan(bca_interval(0.0, np.array([0.0, np.inf]), np.zeros(3))).all()


def test_a_band_is_wider_where_the_curve_is_noisier() -> None:
    rng = np.random.default_rng(0)
    per_problem = rng.normal(size=(80, 3)) * np.array([1.0, 2.0, 4.0])
    low, high = percentile_interval(weighted_means(bootstrap_weights(80, 1000, rng), per_problem))
    assert (np.diff(high - low) > 0).all()


def test_a_thousand_resamples_of_a_layered_statistic_take_well_under_a_second() -> None:
    from time import process_time

    rng = np.random.default_rng(0)
    per_problem = rng.normal(size=(200, 10, 4))
    start = process_time()
    of_means(per_problem, lambda m: (m[..., 0] - m[..., 1:].max(axis=-1)).mean(axis=1), rng)
    assert process_time() - start < 1
