"""Problems at matched accuracy: all where it is close, else those that both solve or neither, else none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.claims.measure.matched_accuracy import matched_problems


def table(one: list[float], two: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"RL": one, "SFT": two}, dtype=float, index=[f"p{i}" for i in range(len(one))])


def test_three_points_apart_is_matched_and_four_is_not():
    close, far = ([1.0] * n + [0.0] * (100 - n) for n in (97, 96))
    assert len(matched_problems(table([1.0] * 100, close)).problems) == 100
    found = matched_problems(table([1.0] * 100, far))
    assert list(found.problems) == [f"p{i}" for i in range(96)]
    assert found.lacking == ""
    assert found.accuracy == (1.0, 0.96)


def test_problems_that_nobody_can_judge_are_left_out():
    found = matched_problems(table([1.0] * 19 + [np.nan], [1.0] * 20))
    assert len(found.problems) == 19


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=10, max_size=60))
def test_what_is_left_is_matched_or_said_not_to_be(answers):
    right = table([float(a) for a, _ in answers], [float(b) for _, b in answers])
    found = matched_problems(right)
    assert set(found.problems) <= set(right.index)
    if found.lacking:
        assert len(found.problems) == len(right)
        assert 2 * sum(a == b for a, b in answers) <= len(right) or sum(a == b for a, b in answers) < 10
    else:
        one, two = right.loc[found.problems].mean()
        assert one == pytest.approx(two, abs=0.03 + 1e-9)
        assert len(found.problems) >= 10
