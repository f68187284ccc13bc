"""`python figures/make_all.py`: the paper's figures of one run, as `normprobe figures` draws them."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "figures" / "make_all.py"


def test_one_figure_is_drawn_by_the_name_of_its_claim(bare_run, program, tmp_path, capsys):
    arguments = ["--run", str(bare_run), "--out", str(tmp_path), "--only", "late_spike"]
    program("figures/make_all.py").main(arguments)
    assert {path.stem for path in tmp_path.iterdir()} == {"fig_01_reasoning_features"}
    assert capsys.readouterr().out.startswith(
        f"{tmp_path / 'fig_01_reasoning_features.png'} and .pdf, .txt: "
    )


def test_a_missing_run_is_refused_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, PROGRAM, "--run", tmp_path / "none"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "expected a run directory" in done.stderr
    assert not list(tmp_path.iterdir())
