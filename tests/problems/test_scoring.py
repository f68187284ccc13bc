"""Free-form answers: what is read as the answer, and what does not matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.problems.scoring import matches


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"so $x = 3$ or \boxed{1} , that is \boxed{042}", "42"),
        ("It costs 18 dollars for 3 of them: 1,234.50.", "1234.5"),
        (" Paris. ", "paris"),
        ("-7", "-7"),
        ("new  york", "New York"),
    ],
)
def test_right_answers(answer: str, gold: str) -> None:
    assert matches(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("42 or 43", "42"),
        (r"\boxed{41} 42", "42"),
        ("I will not say Paris today", "Paris"),
        ("", "0"),
        ("7", "-7"),
    ],
)
def test_wrong_answers(answer: str, gold: str) -> None:
    assert not matches(answer, gold)


@given(st.integers(-(10**9), 10**9))
def test_a_number_matches_however_it_is_written(n: int) -> None:
    assert matches(f"the result is {n:,}.", str(n))
    assert not matches(f"the result is {n + 1}", str(n))
