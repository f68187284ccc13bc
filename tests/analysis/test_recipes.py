"""The comparison of recipes: trainings that are finished are judged on the same problems, others are refused."""

import shutil
from pathlib import Path

import pytest

from normprobe.errors import NormprobeError
from normprobe.problems.bundled import TESTBED
from normprobe.report.figure_text import faults


@pytest.fixture
def recipes(program, monkeypatch):
    """The program, with two recipes alone."""
    module = program("analysis/recipes.py")
    monkeypatch.setattr(module, "RECIPES", {"bundled": (), "weight decay 0": ("--weight-decay", "0")})
    return module


def finished(place: Path) -> None:
    shutil.copytree(TESTBED / "final", place / "final")


def test_equal_trainings_are_judged_alike_and_their_numbers_drawn(recipes, tmp_path, capsys):
    for name in (*recipes.RECIPES, recipes.REWARDS):
        finished(recipes.folder(tmp_path, name, 0))
    assert not recipes.main(["judge", str(tmp_path), "--problems", "24"])
    table = recipes.pd.read_csv(tmp_path / "recipes.csv")
    assert table.columns.tolist() == recipes.COLUMNS
    assert set(table["claim"]) == set(recipes.CLAIMS)
    by_recipe = {
        name: rows.drop(columns="recipe").to_numpy().tolist() for name, rows in table.groupby("recipe")
    }
    assert by_recipe["bundled"] == by_recipe["weight decay 0"] == by_recipe["rewards"]
    assert table["value"].notna().all()
    assert (table["think"] > 0.9).all()
    assert "untrained twin" in set(table["quantity"])
    assert {(tmp_path / f"recipes.{kind}").is_file() for kind in ("pdf", "png", "txt")} == {True}
    assert "weight decay 0" in capsys.readouterr().out


def test_all_recipes_are_drawn_in_a_column(program):
    """Numbers of no training: names, units and legend are what could be cut off."""
    recipes = program("analysis/recipes.py")
    rows = [
        (name, seed, claim, quantity, 0.1 * at, 0.1 * at - 0.05, 0.1 * at + 0.05, verdict, 1.0, 0.3)
        for name in (*recipes.RECIPES, recipes.REWARDS)
        for seed, verdict in enumerate(("supported", "not supported", "inconclusive"))
        for claim in recipes.CLAIMS
        for at, quantity in enumerate(("estimate", "untrained twin"))
    ]
    with recipes.drawing(recipes.pd.DataFrame(rows, columns=recipes.COLUMNS)).drawn() as figure:
        assert faults(figure) == []
        legend = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
        assert legend == ["supported", "not supported", "inconclusive"]


def test_a_training_that_is_not_finished_is_refused(recipes, tmp_path):
    with pytest.raises(NormprobeError, match=r"expected a finished training in .*bundled_0, got none"):
        recipes.judge(tmp_path, [0], 24)


def test_trainings_run_one_after_the_other_and_a_failure_is_named(recipes, tmp_path):
    """Without a step there is no warm-up, from which the training by rewards would start."""
    with pytest.raises(
        NormprobeError, match=r"expected trainings that end, got a failure in rewards_0; see log\.txt"
    ):
        recipes.train(tmp_path, [0], "cpu", 0)
    assert (tmp_path / "weight-decay-0_0" / "final").is_dir()
    assert "expected a checkpoint" in (tmp_path / "rewards_0" / "log.txt").read_text(encoding="utf-8")
