"""Statistics within groups of tokens, each beside a slow and obvious reference that loops over the groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata

from normprobe.claims.measure.within_groups import (
    auroc_within,
    centred_within,
    correlation_within,
    ranks_within,
    residuals_within,
)


def draw(seed: int, n: int, n_groups: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Values with ties, [layer, token], and the tokens' groups in no order, some of them empty."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, (3, n)).astype(float), rng.integers(0, n_groups, n), rng


sizes = given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 6))


@sizes
def test_ranks_are_those_of_each_group_alone(seed, n, n_groups):
    values, group, _ = draw(seed, n, n_groups)
    ranks = ranks_within(values, group)
    for here in (group == index for index in np.unique(group)):
        np.testing.assert_array_equal(ranks[:, here], rankdata(values[:, here], axis=1))


@sizes
def test_residuals_are_those_of_least_squares_in_each_group(seed, n, n_groups):
    values, group, rng = draw(seed, n, n_groups)
    covariates = rng.normal(size=(2, n))
    rest = residuals_within(values, covariates, group)
    for here in (group == index for index in np.unique(group)):
        design = np.column_stack([np.ones(here.sum()), covariates[:, here].T])
        target = values[:, here].T
        expected = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
        np.testing.assert_allclose(rest[:, here], expected.T, atol=1e-6)


def test_what_the_covariates_explain_leaves_exactly_nothing():
    covariates = np.array([[1.0, 2.0, 4.0, 7.0, 1.0, 5.0], [2.0, 4.0, 8.0, 14.0, 3.0, 3.0]])
    group = np.array([0, 0, 0, 0, 1, 1])
    values = 0.1 + 0.3 * covariates[:1]
    assert (residuals_within(values, covariates, group) == 0).all()


def test_a_covariate_that_repeats_another_changes_nothing():
    values, group, rng = draw(0, 60, 3)
    covariate = rng.normal(size=(1, 60))
    constant = np.full((1, 60), 0.1)
    once = residuals_within(values, covariate, group)
    repeated = residuals_within(values, np.concatenate([covariate, 3 * covariate, constant]), group)
    np.testing.assert_allclose(repeated, once, atol=1e-12)


def test_equal_values_have_no_order_once_their_mean_is_gone():
    """Rounding would give it one: 0.1 + 0.1 + 0.1 is not 3 × 0.1."""
    group = np.zeros(7, dtype=int)
    assert (centred_within(np.full((1, 7), 0.1), group) == 0).all()
    assert len(np.unique(ranks_within(centred_within(np.full((1, 7), 0.1), group), group))) == 1


@sizes
def test_correlations_are_those_of_each_group_alone(seed, n, n_groups):
    x, group, rng = draw(seed, n, n_groups)
    y = rng.normal(size=x.shape)
    rho = correlation_within(x, y, group, n_groups)
    for index in range(n_groups):
        here = group == index
        for layer in range(len(x)):
            if here.sum() < 2 or np.ptp(x[layer, here]) == 0:
                assert np.isnan(rho[index, layer])
            else:
                expected = pearsonr(x[layer, here], y[layer, here]).statistic
                assert rho[index, layer] == pytest.approx(expected, abs=1e-9)


@sizes
def test_auroc_counts_pairs_within_groups(seed, n, n_groups):
    scores, group, rng = draw(seed, n, n_groups)
    problem_of_group = rng.integers(0, 3, n_groups)
    positive, problem = rng.random(n) < 0.4, problem_of_group[group]
    auroc = auroc_within(scores, positive, group, problem, 3)
    for owner in range(3):
        for layer in range(len(scores)):
            won = [
                (scores[layer, a] > scores[layer, b]) + (scores[layer, a] == scores[layer, b]) / 2
                for a in range(n)
                for b in range(n)
                if problem[a] == owner and group[a] == group[b] and positive[a] and not positive[b]
            ]
            tied = not won or np.ptp(scores[layer, problem == owner]) == 0
            expected = np.nan if tied else np.mean(won)
            np.testing.assert_allclose(auroc[owner, layer], expected)
