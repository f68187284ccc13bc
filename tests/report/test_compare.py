"""Comparisons across runs: run directories in, a tidy table out."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.report.compare import compare, main, side_by_side
from normprobe.report.findings import read_evidence
from normprobe.report.table import marked, with_interval


@pytest.fixture
def runs(whole_run, bare_run) -> list[Path]:
    return [whole_run, bare_run]


def test_the_tidy_table_holds_every_number_of_every_run(runs):
    table = compare(runs)
    for run in runs:
        for item in read_evidence(run):
            rows = table[(table["run"] == run.name) & (table["claim"] == item.claim)].set_index("quantity")
            assert set(rows["verdict"]) == {item.verdict}
            assert rows.loc["estimate", "value"] == pytest.approx(item.estimate, nan_ok=True)
            assert rows.loc["margin", "value"] == pytest.approx(item.decision.margin, nan_ok=True)
            assert list(rows.index[2:]) == [control.label for control in item.controls]
            assert list(rows["low"][2:]) == pytest.approx([c.interval[0] for c in item.controls], nan_ok=True)
    assert set(table["run"]) == {"whole", "bare"}


def test_side_by_side_keeps_the_runs_order_and_shows_a_dash_for_what_was_not_judged(runs):
    head, rows = side_by_side(compare(runs[::-1]))
    assert head == ["claim", "", "bare", "whole"]
    model, rows = rows[:3], rows[3:]
    assert [row[:2] for row in model] == [["model", "name"], ["", "layers × width"], ["", "seed"]]
    assert [row[2:] for row in model[:2]] == [["toy", "toy"], ["–", "–"]], "of these nothing else is recorded"
    assert [row[1] for row in rows] == ["verdict", "estimate", "margin"] * (len(rows) // 3)
    by_claim = {row[0]: rows[i : i + 3] for i, row in enumerate(rows) if row[0]}
    assert {row[2] for row in by_claim["high_norm_is_causal"]} == {"–"}
    (item,) = [item for item in read_evidence(runs[0]) if item.claim == "high_norm_is_causal"]
    assert [row[3] for row in by_claim[item.claim]] == [
        marked(item.verdict),
        with_interval(item.estimate, item.interval),
        with_interval(item.decision.margin, item.decision.interval),
    ]


def test_the_model_of_each_run_stands_above_its_verdicts(runs, tmp_path):
    for run, name, depth in ((runs[0], "small", 12), (runs[1], "large", 36)):
        copied = shutil.copytree(run, tmp_path / name)
        manifest = json.loads((copied / "manifest.json").read_text())
        manifest["identities"]["model"] = {"name": f"org/{name}", "n_layers": depth, "d_model": 64 * depth}
        (copied / "manifest.json").write_text(json.dumps(manifest))
    _, rows = side_by_side(compare([tmp_path / "small", tmp_path / "large"]))
    assert [row[2:] for row in rows[:2]] == [["org/small", "org/large"], ["12 × 768", "36 × 2304"]]


def test_the_command_writes_what_it_prints_in_each_form(runs, tmp_path, capsys):
    main([*map(str, runs), "--out", str(tmp_path / "comparison.csv")])
    shown = capsys.readouterr().out
    head, rows = side_by_side(compare(runs))
    assert [line.split() for line in shown.splitlines()] == [" ".join(row).split() for row in [head, *rows]]
    written = pd.read_csv(tmp_path / "comparison.csv")
    main([*map(str, runs), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert len(document) == len(written) == len(compare(runs))
    assert list(document[0]) == list(written)
    main([*map(str, runs), "--markdown"])
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2


def test_runs_judged_by_other_versions_of_a_claim_are_refused(runs, tmp_path):
    older = Path(shutil.copytree(runs[1], tmp_path / "older"))
    file = older / "evidence" / "verdicts.json"
    entries = json.loads(file.read_text())
    entries[0]["version"] += 1
    file.write_text(json.dumps(entries))
    of_run = f"{entries[0]['version'] - 1} in whole, {entries[0]['version']} in older"
    with pytest.raises(NormprobeError, match=f"one version of {entries[0]['claim']}, got {of_run}"):
        compare([runs[0], older])


def test_runs_of_one_name_are_refused(runs, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / runs[0].name)
    with pytest.raises(NormprobeError, match="different names"):
        compare([runs[0], Path(other)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected run directories to compare, got none"),
        (["nowhere"], "expected a run directory"),
        (["nowhere", "--json", "--markdown"], "expected one form of output"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message, capsys):
    assert run_main(main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_rows_are_not_written_into_a_folder_that_is_not_there(runs, tmp_path, capsys):
    assert run_main(main, [*map(str, runs), "--out", str(tmp_path / "none" / "rows.csv")]) == 2
    assert "expected a folder for --out" in capsys.readouterr().err
