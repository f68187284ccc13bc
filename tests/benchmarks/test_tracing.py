"""The benchmark of tracing at toy size: every way is measured in a process of its own, and its table shows it."""

import json
import sys
from pathlib import Path

import pytest

from normprobe.problems import bundled

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_every_way_is_measured_and_shown(program, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    out = tmp_path / "toy.jsonl"
    arguments = [str(bundled.find("tiny-thinker").folder), "--lengths", "32", "--out", str(out)]
    assert program("benchmarks/tracing.py").main(arguments) == 0
    (result,) = (json.loads(line) for line in out.read_text().splitlines())
    assert [row["way"] for row in result["found"]] == ["floor", "bounded", "sampled", "stacked"]
    assert all(row["seconds"] > 0 for row in result["found"])
    printed = capsys.readouterr().out
    assert all(f"| {row['way']} |" in printed for row in result["found"])
