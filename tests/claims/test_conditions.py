"""Conditions: what counts, what fails, and that no verdict rests on what has failed."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from normprobe.claims.conditions import failures, measure_conditions
from normprobe.claims.registry import BY_NAME, CLAIMS, evaluate_all
from normprobe.report.conditions_table import conditions_line, conditions_text
from normprobe.report.table import verdict_table
from normprobe.runs.tables import Tables
from normprobe.thinking_formats import MODES


def responses(**by_mode: dict[str, object]) -> pd.DataFrame:
    """Eight responses of each mode: a thought in think, an answer, nothing leaked, all right but for what is given."""
    rows = []
    for mode in MODES:
        usual = {
            "mode": mode,
            "asked": "documented",
            "thought_start": -1 if mode == "no_think" else 3,
            "answer_start": 6,
            "finish": "stop",
            "truncated": False,
            "leaked": False,
            "correct": True,
        }
        rows += [usual | by_mode.get(mode, {})] * 8
    return pd.DataFrame(rows).astype({"correct": "boolean"})


def test_shares_are_counted_by_mode():
    table = responses()
    table.loc[:1, ["thought_start", "truncated", "correct"]] = [-1, True, False]
    table.loc[2, "finish"] = "length"
    table["correct"] = table["correct"].where(table["mode"] != "filler")
    found = measure_conditions(table).set_index("mode")
    assert list(found.index) == list(MODES)
    think = found.loc["think"]
    assert (think["n"], think["thought"], think["truncated"], think["answered"], think["correct"]) == (
        8, 0.75, 0.375, 1.0, 0.75,
    )  # fmt: skip
    assert found.loc["no_think", "leaked"] == 0.0
    assert pd.isna(found.loc["filler", "correct"])
    assert failures(found.reset_index()) == {}


@pytest.mark.parametrize(
    ("mode", "change", "line"),
    [
        ("think", {"thought_start": -1}, "in think only 0 of 8 responses hold a thought"),
        ("no_think", {"leaked": True}, "in no_think 8 of 8 responses think although the thought was closed"),
        (
            "filler",
            {"truncated": True},
            "in filler 8 of 8 responses are cut off, or end within their thought",
        ),
        ("think", {"finish": "length"}, "in think 8 of 8 responses are cut off, or end within their thought"),
    ],
)
def test_what_fails_says_so_in_a_line(mode, change, line):
    found = measure_conditions(responses(**{mode: change}))
    assert failures(found) == {mode: line}
    assert f"condition failed: {line}" in conditions_text(found)


def test_one_line_says_what_the_responses_are():
    found = measure_conditions(responses(no_think={"correct": False}))
    shares = (
        "with a thought: think 100%, no_think 0%, filler 100%",
        "truncated: 0%",
        "right: think 100%, no_think 0%, filler 100%",
    )
    assert conditions_line(found) == "; ".join(shares)


def test_half_is_not_most():
    table = responses()
    table.loc[:3, "finish"] = "length"
    table.loc[8:11, "leaked"] = True
    assert failures(measure_conditions(table)) == {}


def test_no_verdict_rests_on_what_has_failed(whole_run, tmp_path):
    run = Path(shutil.copytree(whole_run, tmp_path / "run"))
    written = Tables(run).responses
    written["leaked"] = written["mode"] == "no_think"
    written.to_parquet(run / "responses" / "responses.parquet")
    judged = {item.claim for item in evaluate_all(Tables(run), 0, tmp_path / "evidence")}
    assert judged
    assert judged <= {claim.name for claim in CLAIMS if "no_think" not in claim.modes}
    allowed = evaluate_all(Tables(run), 0, tmp_path / "evidence", allow_failed=True)
    assert judged < {item.claim for item in allowed}
    for item in allowed:
        assert ("no_think" in item.allowed) == ("no_think" in BY_NAME[item.claim].modes)
    marked = [line for line in verdict_table(allowed).splitlines() if "†" in line]
    assert len(marked) == 1 + sum(bool(item.allowed) for item in allowed)
