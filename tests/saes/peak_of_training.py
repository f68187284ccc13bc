"""Prints by how many bytes the memory of a process grows at its peak while it trains the dictionaries of two subjects.

Arguments: a model's folder, an empty folder, width. Run by test_peak_memory.py in a process of its own.
"""

import re
import sys
from pathlib import Path

from saes_fixture import write_tables

from normprobe.config import SaeSettings
from normprobe.models.open import open_model
from normprobe.saes.stages import fill_saes

folder, out, width = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
opened = open_model(folder, check=False)
subjects = {"model": opened, "untrained": opened.untrained(1)}
_, responses = write_tables(opened)


def peak() -> int:
    """In bytes. (What getrusage calls the peak includes that of the process from which this one was forked.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return 1024 * int(found[1])


def train(name: str, width: int) -> None:
    settings = SaeSettings(width=width, k=4, n_samples=256, batch_size=64, memory_gb=0.1)
    (out / name).mkdir()
    fill_saes(out / name, subjects, responses, settings=settings, seed=0, progress=False)


train("small", 64)  # what is imported and compiled is so now
before = peak()
train("wide", width)
print(peak() - before)
