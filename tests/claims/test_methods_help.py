"""The claim on the three methods, on tables with planted accuracies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from layout_fixture import put

from normprobe.claims import methods_help
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.claims.methods_help import BASELINES, LATER, LRS, SHOWN, WARMER, detectable
from normprobe.experiments.selectors import SELECTORS
from normprobe.runs.tables import Tables

PLAIN = 0.6


def write(path: Path, accuracy: dict[str, float], n: int = 2000, idle: Sequence[str] = ()) -> Tables:
    """A run with these accuracies; whoever is not named has `PLAIN`. Answers agree as far as accuracies allow.

    idle: treatments that act on no state.
    """
    rng = np.random.default_rng(0)
    hardness = rng.random(n)
    ids = [f"problem {i}" for i in range(n)]

    def rows(column: str, names: list[str]) -> pd.DataFrame:
        parts = [
            pd.DataFrame(
                {
                    "problem_id": ids,
                    column: name,
                    "correct": pd.array(hardness < accuracy.get(name, PLAIN), dtype="boolean"),
                }
            )
            for name in names
        ]
        return pd.concat(parts, ignore_index=True)

    treatments = [
        "plain",
        *(name for method in BASELINES for name in (method, *BASELINES[method])),
        *SHOWN["ALRR"],
    ]
    table = rows("treatment", treatments)
    acted = ~table["treatment"].isin(["plain", WARMER, *idle])
    put(path, "method_treatments", table.assign(n_triggered=5 * acted.astype(int)))
    put(path, "selection", rows("selector", list(SELECTORS)))
    return Tables(path)


def judge(tables: Tables):
    return methods_help.CLAIM.judge(tables, Resampling(np.random.default_rng(0)), 0)


def test_every_baseline_says_what_it_rules_out(tmp_path):
    measured = methods_help.measure(write(tmp_path, {}, n=20), Resampling(np.random.default_rng(0)))
    controls = {name for form in measured.forms.values() for name in form.controls}
    beginnings = tuple(methods_help.CLAIM.rules_out)
    assert [name for name in controls if not name.startswith(beginnings)] == []
    assert [one for one in beginnings if not any(name.startswith(one) for name in controls)] == []


HELPING = {"ALRR": 0.7, "ERSS": 0.7, LRS: 0.7}


@pytest.mark.parametrize(
    "accuracy, verdict",
    [
        (HELPING, "supported"),
        ({}, "not supported"),
        ({**HELPING, "ERSS": 0.5}, "not supported"),  # one method harms
        ({**HELPING, "ALRR: random gate": 0.7}, "not supported"),  # extra passes anywhere help as much
        ({**HELPING, "majority": 0.7}, "not supported"),
        ({**HELPING, "ALRR: damped loop": 0.7}, "not supported"),
        *(({**HELPING, rival: 0.7}, "not supported") for rival in LATER),
        ({**HELPING, "CAA": 0.7}, "not supported"),
        (
            {
                **HELPING,
                **dict.fromkeys(("lrs_A", *SHOWN["LRS"]), 0.9),
                "oracle": 1.0,
                **dict.fromkeys(SHOWN["ALRR"], 0.9),
            },
            "supported",
        ),  # these decide nothing
    ],
)
def test_the_weakest_method_against_its_strongest_baseline_decides(
    tmp_path: Path, accuracy: dict[str, float], verdict: str
) -> None:
    evidence, series = judge(write(tmp_path, accuracy))
    assert evidence.verdict == verdict
    assert set(series["quantity"]) == {"accuracy", "gain: ALRR", "gain: ERSS", "gain: LRS"}
    shown = series[(series["quantity"] == f"gain: {evidence.form}")]
    assert shown["estimate"].iloc[0] == pytest.approx(evidence.estimate)
    assert {c.label for c in evidence.own_controls} > {"accuracy, plain"}
    assert "would have been found with 90 % power" in evidence.note


def test_a_small_gain_is_inconclusive_or_refused_and_a_missing_baseline_decides_nothing(
    tmp_path: Path,
) -> None:
    tables = write(tmp_path / "a", HELPING)
    treatments = tables.method_treatments
    put(tables.path, "method_treatments", treatments[treatments["treatment"] != WARMER])
    evidence, _ = judge(Tables(tables.path))
    assert evidence.verdict == "inconclusive"
    assert evidence.decision.missing == (("ERSS", WARMER),)
    put(tables.path, "method_treatments", treatments[treatments["treatment"] != "ALRR"])
    with pytest.raises(NotMeasurable, match="answers under ALRR"):
        judge(Tables(tables.path))
    with pytest.raises(NotMeasurable, match="at least"):
        judge(write(tmp_path / "b", HELPING, n=5))


def test_an_evaluation_from_before_a_rival_joined_decides_nothing(tmp_path: Path) -> None:
    tables = write(tmp_path, HELPING)
    selection = tables.selection
    put(tables.path, "selection", selection[~selection["selector"].isin(LATER)])
    evidence, _ = judge(Tables(tables.path))
    assert evidence.verdict == "inconclusive"
    assert evidence.decision.missing == tuple(("LRS", name) for name in LATER)
    assert "evaluated before it joined" in evidence.reason


def test_what_a_rival_leaves_unwritten_is_in_the_note(tmp_path: Path) -> None:
    tables = write(tmp_path, HELPING)
    assert "tokens" not in judge(tables)[0].note
    tokens = tables.selection["selector"].map({"random": 10, "think@n": 65}).fillna(100).astype(int)
    put(tables.path, "selection", tables.selection.assign(tokens=tokens))
    note = judge(Tables(tables.path))[0].note
    assert note.endswith("Of the samples' tokens random takes 10%, think@n takes 65%.")


def test_the_detectable_gain_is_that_of_a_power_calculation() -> None:
    """Three points at ten per cent discordance need about 1,168 problems at 90 % power (870 at 80 %)."""
    assert detectable(0.10, 1168) == pytest.approx(0.03, abs=1e-4)


def test_what_never_acted_gains_nothing_and_says_nothing(tmp_path):
    method, _ = judge(write(tmp_path / "a", HELPING, idle=["ALRR"]))
    assert (method.verdict, method.reason) == ("inconclusive", "ALRR acted on no state.")
    baseline, _ = judge(write(tmp_path / "b", HELPING, idle=["ERSS: rotation"]))
    assert baseline.verdict == "inconclusive"
    assert baseline.reason == "ERSS: rotation cannot be computed: it acted on no state."
