"""Tasks of reasoning-gym: drawn from a seed, no question twice, scored by the task's own rule."""

import json

import pandas as pd
import pytest

from normprobe.errors import NormprobeError
from normprobe.problems import open_source
from normprobe.problems.problem_rows import same_question
from normprobe.problems.source import COLUMNS

SIZES = {"sae": 20, "select": 10, "measure": 12}


def test_problems_are_drawn_from_the_seed_and_no_question_comes_twice() -> None:
    source = open_source("reasoning-gym:chain_sum?max_terms=3&max_digits=1,leg_counting")
    table = source.load(SIZES, seed=0)
    assert tuple(table.columns) == COLUMNS
    assert table["split"].value_counts().to_dict() == SIZES
    assert table["question"].map(same_question).is_unique
    assert set(table["domain"]) == {"chain_sum", "leg_counting"}
    assert set(table.loc[table["domain"] == "chain_sum", "difficulty"]) == {2, 3}, "its number of terms"
    pd.testing.assert_frame_equal(table, open_source(source.name).load(SIZES, seed=0))
    assert table["question"].tolist() != source.load(SIZES, seed=1)["question"].tolist()


def test_several_values_of_a_setting_are_levels() -> None:
    source = open_source("reasoning-gym:chain_sum?min_terms=2&max_terms=2|5")
    table = source.load(SIZES, seed=0)
    assert table["difficulty"].value_counts().to_dict() == {1: 21, 2: 21}


@pytest.mark.parametrize("task", ["chain_sum", "spell_backward", "countdown", "graph_color", "sudoku"])
def test_the_scorer_of_the_task_judges(task: str) -> None:
    source = open_source(f"reasoning-gym:{task}")
    table = source.load(dict.fromkeys(SIZES, 8), seed=0)
    for gold in table["answer"]:
        oracle = json.loads(gold)["answer"] if gold.startswith('{"task"') else gold
        assert not source.score("", gold)
        assert not source.score("nothing", gold)
        if oracle is not None:
            assert source.score(oracle, gold)
            assert source.score(
                f"So we think.\n\nThe answer is {oracle}." if "\n" not in oracle else oracle, gold
            )


def test_a_problem_is_judged_by_its_own_task_where_the_tasks_judge_differently() -> None:
    """chain_sum takes 20.0 for 20, leg_counting does not."""
    source = open_source("reasoning-gym:chain_sum,leg_counting")
    table = source.load(dict.fromkeys(SIZES, 8), seed=0)
    for domain, gold in zip(table["domain"], table["answer"], strict=True):
        oracle = json.loads(gold)["answer"]
        assert source.score(oracle, gold)
        assert source.score(f"{oracle}.0", gold) == (domain == "chain_sum")


def test_another_answer_than_the_oracles_may_be_right() -> None:
    source = open_source("reasoning-gym:countdown?min_numbers=4&max_numbers=4")
    gold = source.load(dict.fromkeys(SIZES, 8), seed=0)["answer"][0]
    oracle = json.loads(gold)["answer"]
    assert source.score(f"({oracle})", gold)
    assert not source.score("__import__('os').getcwd()", gold)
    assert not source.score("9**9**9**9", gold)


def test_too_few_questions_are_refused() -> None:
    source = open_source("reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1")
    with pytest.raises(NormprobeError, match="expected more questions of reasoning-gym's chain_sum"):
        source.load({"sae": 400, "select": 8, "measure": 8}, seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "got ''"),
        ("chain_sums", r"got 'chain_sums'; correct the name \(chain_sum"),
        ("composite", "got 'composite'"),
        ("chain_sum?max_term=3", "settings that reasoning-gym's chain_sum takes"),
        ("chain_sum?max_terms=1", "max_terms must be >= min_terms"),
        ("chain_sum?max_terms=many", "settings that reasoning-gym's chain_sum takes"),
        ("chain_sum?seed=3", "got 'seed=3'"),
        ("chain_sum?max_terms", "got 'max_terms'"),
    ],
)
def test_unknown_tasks_and_settings_are_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as refusal:
        open_source(f"reasoning-gym:{name}")
    assert "\n" not in str(refusal.value)
