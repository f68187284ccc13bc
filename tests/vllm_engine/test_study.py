"""Studies through vLLM, in a process of their own: their engines close, and the process groups of all others with them
(studies_through_vllm.py)."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm.version")
CHECKS = Path(__file__).with_name("studies_through_vllm.py")


def test_a_study_through_vllm() -> None:
    options = ("-q", "-W", "default", "-p", "no:cacheprovider", "-p", "no:xdist")
    command = [sys.executable, "-m", "pytest", str(CHECKS), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " 6 passed" in f" {done.stdout.splitlines()[-1]}"
