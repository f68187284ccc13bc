"""The benchmark of the plugin, in small: it runs, holds its treatments to the same tokens and writes its ratios."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.version")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def result_of(program: str, folder: Path) -> dict[str, Any]:
    """What a benchmark of few requests leaves, which is also what it shows."""
    out = folder / "result.jsonl"
    options = ["--batch", "2", "--rounds", "1", "--new-tokens", "6", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".md").read_text(encoding="utf-8").strip() in done.stdout
    return json.loads(out.read_text(encoding="utf-8"))


def test_the_benchmark_runs_and_writes_what_it_measured(tmp_path: Path) -> None:
    result = result_of("vllm_engine.py", tmp_path)
    assert set(result["ratios"]) == {"probe", "alrr_0", "erss", "alrr_10", "no plugin"}
    for row in result["ratios"].values():
        assert 0 < row["ratio"] < 10
    floor = result["alrr_10_against_floor"]
    assert floor["forced_passes"] > 0
    assert floor["layer_pass_us"] > 0


def test_the_parts_of_a_step_are_timed_and_their_operations_counted(tmp_path: Path) -> None:
    parts = result_of("step_parts.py", tmp_path)["parts"]
    assert parts["plain"]["the policy at its layers"] == {"us": 0, "operations": 0}
    for name in ("probe", "alrr_0", "erss", "alrr_10"):
        assert parts[name]["the policy at its layers"]["operations"] > 5
        for part in ("requests that start and end", "rows of the policy", "hooks after blocks"):
            assert 0 < parts[name][part]["us"] < 1e5
