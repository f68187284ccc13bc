"""Rank statistics within strata, beside slow references, and the null that a bootstrap of shares must not beat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kruskal, rankdata, spearmanr

from normprobe.stats.bootstrap import bootstrap_weights, percentile_interval
from normprobe.stats.correlation import share_between_groups, spearman_within

ONCE = np.ones((1, 24))


def by_hand(x, group, stratum, counts) -> float:
    """The share of one resample, pair by pair."""
    drawn = []
    for value in np.unique(stratum):
        repeated = np.repeat(np.flatnonzero(stratum == value), counts[stratum == value])
        if len(np.unique(group[stratum == value])) > 1:
            drawn += zip(repeated, (rankdata(x[repeated]) - 0.5) / max(len(repeated), 1), strict=True)
    pairs = [
        (group[i] == group[j], (rank_i - rank_j) ** 2) for i, rank_i in drawn for j, rank_j in drawn if i != j
    ]
    within = np.mean([distance for alike, distance in pairs if alike])
    return 1 - within / np.mean([distance for _, distance in pairs])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_the_share_is_that_of_all_pairs_of_different_observations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 9, 24).astype(float)
    group, stratum = rng.integers(0, 3, (2, 24))
    weights = bootstrap_weights(24, 5, rng)
    fast = share_between_groups(x, group, stratum, weights)
    slow = [by_hand(x, group, stratum, counts) for counts in weights.astype(int)]
    np.testing.assert_allclose(fast, slow, atol=1e-9)


def test_with_equal_groups_in_one_stratum_it_is_kruskal_wallis_less_chance() -> None:
    x, group = np.random.default_rng(0).normal(size=24), np.arange(24) % 4
    h = kruskal(*(x[group == value] for value in range(4))).statistic
    share = share_between_groups(x, group, np.zeros(24, dtype=int), ONCE)[0]
    assert share == pytest.approx((h - 4 + 1) / (24 - 4))


def test_a_stratum_may_shift_everything_and_a_monotone_map_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x, group, stratum = rng.normal(size=24), np.arange(24) % 3, np.arange(24) // 12
    plain = share_between_groups(x, group, stratum, ONCE)
    np.testing.assert_allclose(share_between_groups(np.exp(x + 9.0 * stratum), group, stratum, ONCE), plain)


def test_groups_apart_explain_most_and_groups_alike_nothing() -> None:
    group, stratum = np.arange(24) % 2, np.zeros(24, dtype=int)
    apart = share_between_groups(group + np.linspace(0, 0.5, 24), group, stratum, ONCE)[0]
    assert 0.7 < apart <= 1
    assert np.isnan(share_between_groups(np.ones(24), group, stratum, ONCE)[0])
    assert np.isnan(share_between_groups(np.arange(24.0), group, group, ONCE)[0])


def test_resamples_of_a_null_lie_about_its_share_and_seldom_claim_anything() -> None:
    """40 problems of 4 domains and 4 difficulties: draws of the classical ε² lie 0.3 too high, and a third claim."""
    rng = np.random.default_rng(0)
    group, stratum = np.arange(40) % 4, np.arange(40) // 4 % 4
    drift, claimed = [], 0
    for _ in range(200):
        x, weights = rng.normal(size=40), bootstrap_weights(40, 400, rng)
        draws = share_between_groups(x, group, stratum, weights)
        drift.append(np.mean(draws) - share_between_groups(x, group, stratum, np.ones((1, 40)))[0])
        claimed += percentile_interval(draws)[0] > 0.05
    assert abs(np.mean(drift)) < 0.02
    assert claimed <= 5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_rho_within_is_the_mean_over_strata_by_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, stratum = rng.normal(size=24), rng.normal(size=24), np.repeat([0, 1, 2], [6, 8, 10])
    counts = bootstrap_weights(24, 1, rng)
    each, sizes = [], []
    for value in range(3):
        here = np.repeat(np.flatnonzero(stratum == value), counts[0, stratum == value].astype(int))
        if len(np.unique(here)) > 1:
            each.append(spearmanr(x[here], y[here]).statistic)
            sizes.append(len(here))
    rho = spearman_within(x, y, stratum, counts)[0]
    assert rho == pytest.approx(np.average(each, weights=sizes))


def test_a_stratum_without_difference_tells_nothing() -> None:
    x, stratum = np.arange(24.0), np.arange(24) // 12
    y = np.where(stratum == 0, 5.0, x)
    assert spearman_within(x, y, stratum, ONCE)[0] == pytest.approx(1.0)
    assert np.isnan(spearman_within(x, np.ones(24), stratum, ONCE)[0])


def test_a_resample_without_a_stratum_is_not_an_error() -> None:
    x, stratum = np.arange(24.0), np.arange(24) // 12
    counts = np.vstack([ONCE, np.where(stratum == 0, 0.0, 1.0)])
    np.testing.assert_allclose(spearman_within(x, -x, stratum, counts), -1.0)
    assert np.isfinite(share_between_groups(x, np.arange(24) % 2, stratum, counts)).all()
