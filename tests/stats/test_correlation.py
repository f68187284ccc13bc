import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from normprobe.stats.bootstrap import bootstrap_weights
from normprobe.stats.correlation import spearman, weighted_spearman


@given(st.integers(3, 30), st.integers(0, 1000))
def test_it_is_scipys_spearman_for_each_layer_ties_included(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 4, (2, 3, n)).astype(float)
    x[:, 0], y[:, 0] = 9.0, 8.0  # so that no layer is constant
    expected = [spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(spearman(x, y), expected, atol=1e-10)


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_a_resample_by_weights_is_a_resample_by_repetition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, (2, 25)).astype(float)
    weights = bootstrap_weights(25, 8, rng)
    fast = weighted_spearman(x, y, weights)
    for row, value in zip(weights.astype(int), fast, strict=True):
        np.testing.assert_allclose(value, spearman(np.repeat(x, row), np.repeat(y, row)), atol=1e-9)


def test_what_depth_explains_is_gone_when_depth_is_partialled_out() -> None:
    rng = np.random.default_rng(0)
    depth = np.arange(200.0)
    x, y = depth + rng.normal(scale=20, size=200), depth + rng.normal(scale=20, size=200)
    assert spearman(x, y) > 0.8
    assert abs(spearman(x, y, depth)) < 0.2


def test_nothing_left_is_nan_and_not_rounding_noise() -> None:
    x, y = np.arange(10.0), np.random.default_rng(0).normal(size=10)
    assert np.isnan(spearman(x, y, x))
    assert np.isnan(spearman(np.ones(10), y))
    assert np.isnan(weighted_spearman(np.ones(10), y, np.ones((2, 10)))).all()
