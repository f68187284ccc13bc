"""Policies in a compiled forward pass: runs compiled_cases.py as tests of their own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_cases_pass_without_checks_at_each_call() -> None:
    """In a process of its own: conftest.py wraps every function in checks that no graph can hold."""
    cases = ROOT / "tests" / "parity" / "compiled_cases.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--noconftest",
        "-q",
        "--show-capture=no",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*command, str(cases)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
