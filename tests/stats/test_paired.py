import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from normprobe.stats.paired import mcnemar, paired_difference, sign_flip_p
from normprobe.stats.verdict import holm


def outcomes(both: int, won: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, True, False, False], [both, won, lost, neither])
    second = np.repeat([True, False, True, False], [both, won, lost, neither])
    return first, second


def test_mcnemar_counts_only_the_pairs_that_disagree() -> None:
    estimate = mcnemar(*outcomes(50, 12, 3, 35))
    assert estimate.value == pytest.approx(0.09)
    assert estimate.p == pytest.approx(binomtest(12, 15).pvalue)
    assert estimate.p == mcnemar(*outcomes(0, 12, 3, 0)).p
    assert estimate.interval[0] > 0


def test_no_disagreement_is_no_difference_but_not_certainty() -> None:
    estimate = mcnemar(*outcomes(60, 0, 0, 40))
    assert (estimate.value, estimate.p) == (0.0, 1.0)
    assert estimate.interval[0] < 0 < estimate.interval[1]


def test_the_mcnemar_interval_covers() -> None:
    rng = np.random.default_rng(0)
    cells = rng.multinomial(200, [0.55, 0.25, 0.10, 0.10], size=2000)
    intervals = np.array([mcnemar(*outcomes(*cell)).interval for cell in cells])
    covered = ((intervals[:, 0] <= 0.15) & (intervals[:, 1] >= 0.15)).mean()
    assert 0.93 <= covered <= 0.97


def test_a_paired_difference_sees_through_the_spread_between_problems() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(scale=100, size=40)
    estimate = paired_difference(base + 1 + rng.normal(size=40), base, rng)
    assert 0 < estimate.interval[0] < estimate.value < estimate.interval[1]
    assert estimate.p < 0.01


def test_few_pairs_are_enumerated_exactly() -> None:
    assert sign_flip_p(np.array([1.0, 2.0, 3.0, 4.0]), np.random.default_rng(0)) == pytest.approx(1 / 16)


def test_the_sign_flip_test_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    p = np.array([sign_flip_p(rng.normal(size=20), rng, 499) for _ in range(400)])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.03)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_raw_p_and_bonferroni_and_keeps_their_order(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all() or adjusted.max() <= 1
    assert adjusted[p.argmin()] == pytest.approx(min(1, len(p) * p.min()))
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_on_a_known_case() -> None:
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    null = rng.random((2000, 20))
    assert np.mean([(holm(p) < 0.05).any() for p in null]) == pytest.approx(0.05, abs=0.015)
