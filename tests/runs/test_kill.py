"""Kill −9 at random points: a study that is replayed from its configuration, killed and resumed leaves the same files.

NORMPROBE_KILLS sets how many kills there are: 10 by default, 50 in `make nightly`.
"""

import itertools
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked_study
import pytest
import torch

from normprobe.models.initialise import initialise
from normprobe.problems.testbed.tokenizer import build_tokenizer

KILLS = int(os.environ.get("NORMPROBE_KILLS", "10"))
SIZES = ["--n-sae", "8", "--n-select", "8", "--n-measure", "8", "--max-new-tokens", "12"]
SAES = ["--width", "16", "--n-samples", "512", "--allow-failed-conditions"]
OF_THE_RUN_ITSELF = {"manifest.json", "report.html", ".lock"}
"""Files that say when and where a run was made."""


@pytest.fixture
def talkative(make_tiny_qwen3, tmp_path: Path) -> Path:
    """A model of weights so wide that it says many different tokens."""
    model = make_tiny_qwen3()
    model.config.initializer_range = 0.2
    initialise(model, torch.Generator().manual_seed(0))
    folder = tmp_path / "talkative"
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def start(study: list[str], out: Path) -> BaseProcess:
    """`normprobe verify`, once it has opened its run directory."""
    arguments = [*study, "--out", str(out)]
    manifest, since_ns = out / "manifest.json", time.time_ns()
    process = forked_study.start(["verify", *arguments])
    while process.is_alive() and not (manifest.exists() and manifest.stat().st_mtime_ns > since_ns):
        time.sleep(0.01)
    return process


def finish(process: BaseProcess) -> float:
    """Wait for the end; seconds from the call on."""
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


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


@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
def test_a_replayed_study_leaves_the_same_files_however_often_it_is_killed(
    talkative: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    finish(start(["--model", str(talkative), "--problems", "testbed", *SIZES, *SAES], whole))
    replay = ["--config", str(whole / "config.yaml")]
    seconds = finish(start(replay, tmp_path / "replayed"))  # and not the first, which waits for imports
    assert files(tmp_path / "replayed") == files(whole)
    expected = files(whole)
    assert {"responses/responses.parquet", "reductions/sums.parquet", "evidence/verdicts.json"} <= set(
        expected
    )

    rng = random.Random(0)
    killed: Counter[str] = Counter()
    for attempt in itertools.count():
        out = tmp_path / f"killed_{attempt}"
        while killed.total() < KILLS:
            process = start(replay, out)
            process.join(rng.uniform(0, seconds))
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            partial = [path.name.removesuffix(".partial") for path in out.glob("*.partial")]
            killed[", ".join(partial) or "between stages"] += 1
        else:
            finish(start(replay, out))
        assert files(out) == expected
        shutil.rmtree(out)
        if killed.total() >= KILLS:
            break
    print(f"{killed.total()} kills in {attempt + 1} studies, while filling: {dict(killed)}")
