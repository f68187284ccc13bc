"""pass@k against the counting of all sets of k samples."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.stats.pass_at_k import pass_at_k


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_share_of_sets_that_hold_a_right_one(case: tuple[int, int, int]) -> None:
    n, right, k = case
    sets = list(itertools.combinations([True] * right + [False] * (n - right), k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, sets)) / len(sets))


def test_thousands_of_samples_are_no_trouble() -> None:
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)


def test_more_than_was_drawn_is_refused() -> None:
    with pytest.raises(NormprobeError, match="got n = 4, right = 2, k = 8; draw at least k samples"):
        pass_at_k(4, 2, 8)
