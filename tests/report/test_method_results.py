"""The evaluation in numbers: gains against a count by hand, regimes that are confirmed or not, panels that show it."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from normprobe.report.findings import NothingToDraw
from normprobe.report.method_results import (
    draw_failures,
    draw_selectors,
    draw_sensitivity,
    read,
    regime_table,
    treatment_table,
)
from normprobe.runs.tables import Tables
from normprobe.stats.paired import mcnemar

IDS = [f"p{i}" for i in range(8)]
PLAIN = [True, True, True, True, False, False, False, False]
METHOD = [True, True, True, False, True, True, False, False]


def treatment(
    name: str, right: list[bool], answers: list[str], rates: dict[str, float], **costs: float
) -> pd.DataFrame:
    frame = pd.DataFrame({"problem_id": IDS, "correct": right, "answer": answers, "n_tokens": 10})
    return frame.assign(
        treatment=name,
        rates=json.dumps(rates),
        **({"extra_passes": 0.0, "extra_flops": 0.0, "seconds": 2.0} | costs),
    )


@pytest.fixture
def treatments() -> pd.DataFrame:
    answers = ["7", "7", "7", "", "7", "7", "7", ""]
    plain = treatment("plain", PLAIN, ["7"] * 8, {"3": 0.0})
    method = treatment("ALRR", METHOD, answers, {"3": 0.25, "4": 0.75}, extra_passes=0.01, seconds=3.0)
    return pd.concat([plain, method], ignore_index=True)


def test_a_treatment_is_compared_with_plain_generation_on_the_same_problems(treatments: pd.DataFrame) -> None:
    head, (plain, method) = treatment_table(treatments)
    regimes = dict(zip(head, method, strict=True))
    expected = mcnemar(np.array(METHOD), np.array(PLAIN))
    assert regimes["Accuracy"] == "62.5%"
    assert regimes["Gain"].startswith(f"{expected.value:.2f} [")
    assert regimes["Won / lost"] == "2 / 1"
    assert regimes["Acted on"] == "50.00%"
    assert regimes["Extra passes / FLOPs"].startswith("1.00%")
    assert (regimes["Tokens"], regimes["Time"]) == ("1.000", "1.50")
    assert dict(zip(head, plain, strict=True))["Gain"] == "–"


def test_losses_are_split_by_whether_the_thought_closed(treatments: pd.DataFrame) -> None:
    axes = Figure().subplots()
    draw_failures(axes, treatments)
    won, wrong, never = (bar.get_width() for bar in axes.patches)
    assert (won, wrong, never) == (2 / 8, 0.0, -1 / 8)


def test_the_best_setting_of_a_regime_is_shown_with_what_held_out_problems_made_of_it() -> None:
    counts = {"n": 10, "plain": 0.5, "lost": 0}
    swept = pd.DataFrame(
        [
            {"regime": "easy", "method": "ALRR", "name": "a", "accuracy": 0.5, "gained": 0, **counts},
            {"regime": "easy", "method": "ALRR", "name": "b", "accuracy": 0.8, "gained": 3, **counts},
            {"regime": "hard", "method": "ALRR", "name": "a", "accuracy": 0.5, "gained": 0, **counts},
        ]
    )
    confirmed = pd.DataFrame([{"regime": "easy", "name": "b", "gained": 5, "lost": 5, "n": 100}])
    head, (easy, hard) = regime_table(swept, confirmed)
    assert dict(zip(head, easy, strict=True))["Best setting"] == "b"
    assert dict(zip(head, easy, strict=True))["Held-out gain"].startswith("0.00 [")
    assert dict(zip(head, hard, strict=True))["Held-out gain"] == "–"


def test_panels_show_a_point_per_row_and_the_norms_selectors_in_a_colour_of_their_own() -> None:
    names = ["oracle", "random", "majority", "lrs_A", "mean_norm"]
    selection = pd.DataFrame({"selector": names * 2, "correct": [True] * 5 + [False] * 5})
    axes = Figure().subplots()
    draw_selectors(axes, selection)
    colours = {
        label.get_text(): line.get_color()
        for label, line in zip(axes.get_yticklabels(), axes.lines, strict=True)
    }
    assert colours["lrs_A"] == colours["mean_norm"] != colours["majority"]
    assert len({colours[name] for name in ("oracle", "random", "majority", "lrs_A")}) == 4
    axes = Figure().subplots()
    draw_selectors(axes, selection.assign(tokens=[100, 12, 100, 100, 100] * 2))
    assert {label.get_text() for label in axes.get_yticklabels()} == {*names, "random (12%)"} - {"random"}
    row = {"gained": 3, "lost": 1, "n": 20, "trigger_rate": 0.1}
    varied = pd.DataFrame([{"knob": knob, "value": v, **row} for knob in ("a", "b") for v in (1.0, 0.0)])
    panels = list(Figure().subplots(2))
    draw_sensitivity(panels, varied)
    assert [label.get_text().split("\n")[0] for label in panels[0].get_xticklabels()] == ["0", "1"]
    assert panels[0].lines[0].get_ydata()[0] == pytest.approx(0.1)


def test_a_run_without_an_evaluation_says_how_to_make_one(bare_run) -> None:
    with pytest.raises(NothingToDraw, match="normprobe evaluate"):
        read(Tables(bare_run), "method_treatments")
