"""The testbed as a problem source: splits and regimes share no question."""

import pandas as pd
import pytest

from normprobe.problems import open_source
from normprobe.problems.source import COLUMNS

SIZES = {"sae": 64, "select": 32, "measure": 40}


def test_the_testbed_fills_every_split_with_questions_of_its_own() -> None:
    source = open_source("testbed")
    table = source.load(SIZES, seed=3)
    assert tuple(table.columns) == COLUMNS
    assert table["split"].value_counts().to_dict() == SIZES
    questions = table.groupby("split")["question"].agg(set)
    assert not questions["sae"] & questions["select"]
    assert not questions["measure"] & (questions["sae"] | questions["select"])
    pd.testing.assert_frame_equal(table, source.load(SIZES, seed=3))
    assert set(table["question"]) != set(source.load(SIZES, seed=4)["question"])


@pytest.mark.parametrize("number", range(5))
def test_no_question_to_tune_on_is_tested(number: int) -> None:
    regime = open_source("testbed").regimes(pd.DataFrame())[number]
    tune, test = regime.problems(60, "tune"), regime.problems(60, "test")
    assert not set(tune["question"]) & set(test["question"])
    assert len(test) == 60
    assert tuple(test.columns) == COLUMNS[:-1]
    pd.testing.assert_frame_equal(test, regime.problems(60, "test"))
