"""Cohen's d and the paper's classes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normprobe.feature_pages.dependence import class_of, cohens_d


@given(st.integers(0, 200), st.integers(2, 60), st.floats(-3, 3))
def test_d_and_p_are_those_of_the_papers_code(seed, n, shift):
    before, after = np.random.default_rng(seed).normal(size=(2, n))
    after = after * 2 + shift
    d, p = cohens_d(after, before)
    assert d == pytest.approx((after.mean() - before.mean()) / np.sqrt((np.var(after) + np.var(before)) / 2))
    assert p == pytest.approx(stats.ttest_ind(after, before).pvalue, abs=1e-12)
    assert cohens_d(before, after) == pytest.approx((-d, p))


def test_samples_that_do_not_vary():
    ones, twos = np.ones(5), np.full(5, 2.0)
    assert cohens_d(ones, ones) == (0.0, 1.0)
    assert cohens_d(twos, ones) == (math.inf, 0.0)
    assert cohens_d(ones, twos) == (-math.inf, 0.0)
    assert class_of(*cohens_d(twos, ones)) == "token-driven"
    assert class_of(*cohens_d(ones, twos)) == "context-dependent"


@pytest.mark.parametrize(
    ("d", "p", "found"),
    [
        (0.8, 0.009, "token-driven"),
        (0.79, 0.009, "partially token-driven"),
        (0.9, 0.02, "weakly token-driven"),
        (0.5, 0.009, "partially token-driven"),
        (0.2, 0.049, "weakly token-driven"),
        (0.19, 1e-9, "context-dependent"),
        (0.9, 0.05, "context-dependent"),
        (-2.0, 1e-9, "context-dependent"),
    ],
)
def test_classes_are_the_papers(d, p, found):
    assert class_of(d, p) == found
