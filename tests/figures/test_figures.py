"""The figures' programs: each draws from its declared inputs alone, and together they say what they skipped."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FIGURES = Path(__file__).parents[2] / "figures"


NAMES = sorted(path.stem for path in FIGURES.glob("fig_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_needs_no_more_than_its_declared_inputs(whole_run, program, name, tmp_path):
    figure = program(f"figures/{name}.py")
    bare = tmp_path / "bare"
    for table in figure.INPUTS:
        (bare / table).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole_run / table, bare / table)
    figure.main(bare, tmp_path / "out")
    written = {path.suffix: path for path in (tmp_path / "out").iterdir()}
    assert set(written) == {".pdf", ".png", ".txt"}
    assert {path.stem for path in written.values()} == {name}
    assert written[".png"].read_bytes().startswith(b"\x89PNG")
    assert written[".pdf"].read_bytes().startswith(b"%PDF")
    assert len(written[".txt"].read_text(encoding="utf-8").splitlines()) == 1


def test_skipped_claims_cost_their_figures_and_one_line_each(bare_run, program, tmp_path, capsys):
    program("figures/make_all.py").make_all(bare_run, tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES)
    not_drawn = {line.split(":")[0] for line in lines if "not drawn" in line}
    assert {"fig_07_critical_steps", "fig_08_suppression"} <= not_drawn
    drawn = {path.stem for path in (tmp_path / "out").glob("*.pdf")}
    assert drawn == set(NAMES) - not_drawn


@pytest.mark.parametrize("name", ["make_all", "fig_01_reasoning_features"])
def test_a_missing_run_is_refused_in_one_line(name, tmp_path):
    done = subprocess.run(
        [sys.executable, FIGURES / f"{name}.py", "--run", tmp_path / "none"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "expected a run directory" in done.stderr
    assert not list(tmp_path.iterdir())
