"""smol-thinker's problems as a source: held out from its training, judged by the task's own rule, split by question."""

import sys

import pandas as pd
import pytest

from normprobe.errors import NormprobeError
from normprobe.problems import open_source
from normprobe.problems.problem_rows import same_question
from normprobe.problems.smol_thinker.families import FAMILIES, score
from normprobe.problems.source import COLUMNS

SIZES = {"sae": 56, "select": 28, "measure": 60}


def test_every_split_holds_families_and_levels_in_turn_and_no_question_twice() -> None:
    source = open_source("smol-thinker")
    table = source.load(SIZES, seed=3)
    assert tuple(table.columns) == COLUMNS
    assert table["split"].value_counts().to_dict() == SIZES
    assert table["question"].map(same_question).is_unique
    assert set(table["domain"]) == {"arithmetic", "text", "logic"}
    family = table["problem_id"].str.split("-").str[0]
    for split, rows in table.groupby("split"):
        counts = rows.groupby([family, "difficulty"]).size()
        n_levels = sum(len(each.levels) for each in FAMILIES.values())
        assert len(counts) == n_levels, split
        assert counts.max() - counts.min() <= 1
    pd.testing.assert_frame_equal(table, source.load(SIZES, seed=3))


def test_no_question_of_a_study_is_one_to_train_on() -> None:
    studied = set(open_source("smol-thinker").load(SIZES, seed=0)["question"].map(same_question))
    trained = {
        same_question(problem.question)
        for family in FAMILIES.values()
        for level in range(1, len(family.levels) + 1)
        for problem in family.problems(level, 30, seed=0)
    }
    assert not studied & trained


def test_answers_are_judged_by_their_own_task() -> None:
    source = open_source("smol-thinker")
    for family in FAMILIES.values():
        for problem in family.problems(1, 5, seed=0, side="eval"):
            for text, right in ((problem.answer, True), ("", False), ("I do not know.", False)):
                assert source.score(text, problem.gold) == score(problem, text) == right


def test_the_regimes_are_of_the_last_levels_and_no_question_to_tune_on_is_tested() -> None:
    regimes = open_source("smol-thinker").regimes(pd.DataFrame())
    assert [regime.temperature for regime in regimes] == [0.0, 1.0]
    tune, test = (regimes[0].problems(28, split) for split in ("tune", "test"))
    assert tuple(test.columns) == COLUMNS[:-1]
    assert len(test) == 28
    assert not set(tune["question"]) & set(test["question"])
    assert set(test["difficulty"]) == {3, 4}
    pd.testing.assert_frame_equal(test, regimes[0].problems(28, "test"))


def test_anything_behind_the_name_is_refused() -> None:
    with pytest.raises(NormprobeError, match="expected 'smol-thinker' alone, got 'smol-thinker:hard'"):
        open_source("smol-thinker:hard")


def test_without_reasoning_gym_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from normprobe.problems.reasoning_gym import open_task

    open_task.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(
        NormprobeError, match=r"got none; pip install 'normprobe\[reasoning-gym\]'"
    ) as refusal:
        open_source("smol-thinker")
    assert "\n" not in str(refusal.value)
