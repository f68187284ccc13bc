import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from normprobe.stats.bootstrap import (
    bootstrap_weights,
    mean_interval,
    percentile_interval,
    weighted_means,
)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_resample_draws_as_many_problems_as_there_are(n: int, seed: int) -> None:
    weights = bootstrap_weights(n, 50, np.random.default_rng(seed))
    assert (weights.sum(axis=1) == n).all()
    assert (weights >= 0).all()


def test_the_same_seed_gives_the_same_interval_and_another_seed_does_not() -> None:
    values = np.random.default_rng(0).exponential(size=30)
    first, again, other = (mean_interval(values, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_weighted_means_repeat_the_problems_they_count() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 3, 2))
    weights = bootstrap_weights(7, 20, rng)
    for row, mean in zip(weights.astype(int), weighted_means(weights, values), strict=True):
        np.testing.assert_allclose(mean, np.repeat(values, row, axis=0).mean(axis=0), atol=1e-12)


def test_a_constant_difference_leaves_no_uncertainty() -> None:
    assert mean_interval(np.full(50, 0.5), np.random.default_rng(1)) == pytest.approx((0.5, 0.5), abs=1e-9)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_intervals_of_a_mean_cover_as_often_as_they_promise(draw: str, monkeypatch) -> None:
    monkeypatch.setattr("normprobe.stats.bootstrap.REPLICATES", 500)
    rng = np.random.default_rng(5)
    truth = 3.0 if draw == "normal" else 4.0
    intervals = np.array([mean_interval(getattr(rng, draw)(size=60) + 3, rng) for _ in range(1000)])
    share = ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean()
    assert 0.93 <= share <= 0.97


def test_bca_agrees_with_scipy(monkeypatch) -> None:
    monkeypatch.setattr("normprobe.stats.bootstrap.REPLICATES", 20_000)
    values = np.random.default_rng(0).exponential(size=40)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = mean_interval(values, np.random.default_rng(2))
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_what_is_not_finite_has_no_interval_instead_of_a_wrong_one() -> None:
    values = np.array([1.0, np.nan, 2.0])
    assert np.isnan(mean_interval(values, np.random.default_rng(0))).all()
    assert np.isnan(mean_interval(np.array([1.0]), np.random.default_rng(0))).all()
    assert np.isnan(mean_interval(np.array([0.0, np.inf, 1.0]), np.random.default_rng(0))).all()


def test_a_band_is_wider_where_the_curve_is_noisier() -> None:
    rng = np.random.default_rng(0)
    per_problem = rng.normal(size=(80, 3)) * np.array([1.0, 2.0, 4.0])
    low, high = percentile_interval(weighted_means(bootstrap_weights(80, 1000, rng), per_problem))
    assert (np.diff(high - low) > 0).all()


def test_thousands_of_resamples_of_a_layered_mean_take_well_under_a_second() -> None:
    from time import process_time

    rng = np.random.default_rng(0)
    per_problem = rng.normal(size=(200, 10, 4))
    start = process_time()
    weighted_means(bootstrap_weights(200, 2000, rng), per_problem)
    assert process_time() - start < 1
