"""Comparisons across runs: run directories in, a tidy table out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from normprobe.errors import NormprobeError
from normprobe.report.findings import read_evidence

PROGRAM = Path(__file__).parents[2] / "analysis" / "compare_runs.py"


@pytest.fixture(scope="module")
def compare_runs(program):
    return program("analysis/compare_runs.py")


@pytest.fixture
def runs(whole_run, bare_run) -> list[Path]:
    return [whole_run, bare_run]


def test_the_tidy_table_holds_every_number_of_every_run(compare_runs, runs):
    table = compare_runs.compare(runs)
    for run in runs:
        for item in read_evidence(run):
            rows = table[(table["run"] == run.name) & (table["claim"] == item.claim)].set_index("quantity")
            assert set(rows["verdict"]) == {item.verdict}
            assert rows.loc["estimate", "value"] == pytest.approx(item.estimate, nan_ok=True)
            assert list(rows.index[1:]) == [control.label for control in item.controls]
            assert list(rows["low"][1:]) == pytest.approx([c.interval[0] for c in item.controls], nan_ok=True)
    assert set(table["run"]) == {"whole", "bare"}


def test_side_by_side_keeps_the_runs_order_and_shows_a_dash_for_what_was_not_judged(compare_runs, runs):
    text = compare_runs.side_by_side(compare_runs.compare(runs[::-1]))
    head, *rows = text.splitlines()
    assert head.index("bare") < head.index("whole")
    (causal,) = [row for row in rows if row.startswith("high_norm_is_causal")]
    assert "–" in causal.split()


def test_the_program_writes_what_it_prints(compare_runs, runs, tmp_path, capsys):
    compare_runs.main([*map(str, runs), "--out", str(tmp_path / "comparison.csv")])
    assert "whole" in capsys.readouterr().out
    written = pd.read_csv(tmp_path / "comparison.csv")
    assert len(written) == len(compare_runs.compare(runs))
    assert {"quantity", "value"} <= set(written)


def test_runs_of_one_name_are_refused(compare_runs, runs, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / runs[0].name)
    with pytest.raises(NormprobeError, match="different names"):
        compare_runs.compare([runs[0], Path(other)])


def test_a_missing_run_is_refused_in_one_line(tmp_path):
    done = subprocess.run([sys.executable, PROGRAM, tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
