"""The benchmark of the plugin, in small: it runs, holds its treatments to the same tokens and writes its ratios."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm.version")

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "vllm_engine.py"


def test_the_benchmark_runs_and_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "result.jsonl"
    options = ["--batch", "2", "--rounds", "1", "--new-tokens", "6", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert set(result["ratios"]) == {"probe", "alrr_0", "erss", "alrr_10", "no plugin"}
    for row in result["ratios"].values():
        assert 0 < row["ratio"] < 10
    floor = result["alrr_10_against_floor"]
    assert floor["forced_passes"] > 0
    assert floor["layer_pass_us"] > 0
    parts = result["parts"]
    assert parts["plain"]["the policy at its layers"] == dict.fromkeys(("us", "operations", "within_us"), 0)
    for name in ("probe", "alrr_0", "erss", "alrr_10"):
        assert parts[name]["the policy at its layers"]["operations"] > 5
        for part in ("requests that start and end", "rows of the policy", "hooks after blocks"):
            assert 0 < parts[name][part]["us"] < 1e5
        assert all(part["within_us"] >= 0 for part in parts[name].values())
    assert out.with_suffix(".md").read_text(encoding="utf-8").strip() in done.stdout
