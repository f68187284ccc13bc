"""How many threads a command gives to a model."""

from __future__ import annotations

import os

import torch

from normprobe.models.model import OpenModel

TINY = 50_000_000
"""Parameters below which one thread is enough."""


def use_one_thread_if_tiny(opened: OpenModel) -> None:
    """Run a tiny model on one thread, unless OMP_NUM_THREADS names a number. For commands: it is a process's setting.

    An operation of a tiny model takes microseconds. On a busy machine its threads wait for one another much longer:
    30 times as long a request was measured with two threads as with one.
    """
    if "OMP_NUM_THREADS" not in os.environ and opened.model.num_parameters() < TINY:
        torch.set_num_threads(1)
