"""Kill −9 at random points: a study that is killed and resumed leaves the same files as one that was left alone.

NORMPROBE_KILLS sets how many kills there are: 10 by default, 50 in `make nightly`.
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

KILLS = int(os.environ.get("NORMPROBE_KILLS", "10"))
SIZES = ["--n-sae", "8", "--n-select", "8", "--n-measure", "8", "--max-new-tokens", "12"]
SAES = ["--width", "16", "--n-samples", "512"]
OF_THE_RUN_ITSELF = {"manifest.json", "report.html", ".lock"}
"""Files that say when and where a run was made."""


def start(model: Path, out: Path) -> subprocess.Popen[bytes]:
    """`normprobe verify` on a small random model, in a process group of its own."""
    arguments = ["--model", str(model), "--problems", "testbed", *SIZES, *SAES, "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "normprobe", "verify", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end; seconds from the call on. Fails with what the process printed if it failed."""
    begun = time.monotonic()
    _, printed = process.communicate()
    assert process.returncode == 0, printed.decode()
    return time.monotonic() - begun


def begun(process: subprocess.Popen[bytes], out: Path, since_ns: int) -> None:
    """Wait until the process has opened its run directory: the time before is Python's, not the study's."""
    manifest = out / "manifest.json"
    while process.poll() is None and not (manifest.exists() and manifest.stat().st_mtime_ns > since_ns):
        time.sleep(0.01)


def files(run: Path) -> dict[str, object]:
    """The content of every file of a run, but for how long a stage took.

    JSON as what it says, since SAELens writes its keys in any order.
    """
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.name not in OF_THE_RUN_ITSELF:
            content = json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()
            if path.name == "stage.json":
                del content["seconds"]
            found[str(path.relative_to(run))] = content
    return found


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills process groups")
def test_a_killed_study_leaves_the_same_files(tiny_qwen3_dir: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    process = start(tiny_qwen3_dir, whole)
    begun(process, whole, 0)
    seconds = finish(process)
    expected = files(whole)
    assert {"responses/responses.parquet", "reductions/sums.parquet", "evidence/verdicts.json"} <= set(
        expected
    )

    rng = random.Random(0)
    killed: Counter[str] = Counter()
    for attempt in itertools.count():
        out = tmp_path / f"killed_{attempt}"
        while killed.total() < KILLS:
            since = time.time_ns()
            process = start(tiny_qwen3_dir, out)
            begun(process, out, since)
            try:
                process.communicate(timeout=rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                partial = [path.name.removesuffix(".partial") for path in out.glob("*.partial")]
                killed[", ".join(partial) or "between stages"] += 1
            else:
                assert process.returncode == 0
                break
        else:
            finish(start(tiny_qwen3_dir, out))
        assert files(out) == expected
        shutil.rmtree(out)
        if killed.total() >= KILLS:
            break
    print(f"{killed.total()} kills in {attempt + 1} studies, while filling: {dict(killed)}")
