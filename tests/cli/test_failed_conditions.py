"""A model that does not think when it is asked to: the run ends in a line, or goes on with a mark in every table."""

import pytest

from normprobe import verify
from normprobe.console import run_main
from normprobe.report.findings import read_evidence

SIZES = "--n-sae 8 --n-select 8 --n-measure 40 --width 16 --n-samples 512".split()
SHORT = ["--max-new-tokens", "31"]
"""More than half of tiny-thinker's thoughts are longer."""
LINE = "responses are cut off, or end within their thought"


def test_a_run_whose_thoughts_are_cut_off_ends_in_a_line_or_goes_on_with_a_mark(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [*SIZES, *SHORT, "--out", str(out)]
    assert run_main(verify.main, arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"of 56 {LINE}" in line
    assert "--allow-failed-conditions" in line
    assert not (out / "evidence").exists()
    assert not (out / "traces").exists()

    assert run_main(verify.main, [*arguments, "--allow-failed-conditions"]) == 0
    printed = capsys.readouterr().out
    assert "condition failed: in think" in printed
    evidence = read_evidence(out)
    assert evidence
    assert all(LINE in item.allowed for item in evidence)
    assert printed.count(" †") == len(evidence)
    assert printed.count("† rests on conditions that have failed") == 1
    assert "†" in (out / "report.html").read_text()
    assert run_main(verify.main, [*arguments, "--allow-failed-conditions", "--strict"]) == 1


@pytest.mark.parametrize("stage", [verify.train_saes, verify.profile])
def test_nothing_is_made_of_such_responses(tmp_path, capsys, stage):
    assert run_main(stage, [*SIZES, *SHORT, "--out", str(tmp_path / "run")]) == 2
    assert "expected a model that thinks" in capsys.readouterr().err.splitlines()[-1]
