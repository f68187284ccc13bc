"""The paper's figures: each draws from its declared inputs alone, and the program says what it skipped."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from normprobe.claims.registry import CLAIMS
from normprobe.errors import NormprobeError

PROGRAM = Path(__file__).parents[2] / "figures" / "make_all.py"


@pytest.fixture(scope="module")
def make_all(program):
    return program("figures/make_all.py")


def test_every_figure_is_drawn_from_the_tables_of_a_run(whole_run, make_all, tmp_path):
    """Its model, its dictionaries and its report are not needed."""
    run = tmp_path / "run"
    for table in (
        path for path in whole_run.rglob("*/*.*") if path.suffix in {".parquet", ".json", ".safetensors"}
    ):
        (run / table.relative_to(whole_run)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(table, run / table.relative_to(whole_run))
    for stem, drawing in make_all.FIGURES.items():
        out = tmp_path / "out" / stem
        drawing(run).save(out / stem)
        written = {path.suffix: path for path in out.iterdir()}
        assert set(written) == {".pdf", ".png", ".txt"}
        assert {path.stem for path in written.values()} == {stem}
        assert written[".png"].read_bytes().startswith(b"\x89PNG")
        assert written[".pdf"].read_bytes().startswith(b"%PDF")
        assert len(written[".txt"].read_text(encoding="utf-8").splitlines()) == 1


def test_every_claim_has_a_figure_and_no_two_figures_share_a_number(make_all):
    assert {claim.figure for claim in CLAIMS} <= set(make_all.FIGURES)
    numbers = [stem.split("_")[1] for stem in make_all.FIGURES]
    assert len(set(numbers)) == len(numbers) == 23


def test_skipped_claims_cost_their_figures_and_one_line_each(bare_run, make_all, tmp_path, capsys):
    make_all.make_all(bare_run, tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    stems = set(make_all.FIGURES)
    assert len(lines) == len(stems)
    not_drawn = {line.split(":")[0] for line in lines if "not drawn" in line}
    assert {"fig_07_critical_steps", "fig_08_suppression"} <= not_drawn
    drawn = {path.stem for path in (tmp_path / "out").glob("*.pdf")}
    assert drawn == stems - not_drawn


def test_one_figure_is_drawn_by_the_name_of_its_claim(bare_run, make_all, tmp_path):
    make_all.main(["--run", str(bare_run), "--out", str(tmp_path), "--only", "late_spike"])
    assert {path.stem for path in tmp_path.iterdir()} == {"fig_01_reasoning_features"}
    with pytest.raises(NormprobeError, match="expected names of figures or claims, got late_spikes"):
        make_all.main(["--run", str(bare_run), "--out", str(tmp_path), "--only", "late_spikes"])


def test_a_missing_run_is_refused_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, PROGRAM, "--run", tmp_path / "none"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "expected a run directory" in done.stderr
    assert not list(tmp_path.iterdir())
