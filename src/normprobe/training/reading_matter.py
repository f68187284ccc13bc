"""What training reads, step by step: drawn in pools, on a GPU by other processes while the device is at work."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from normprobe.runs.jobs import die_with_parent

Step = TypeVar("Step")
PROCESSES = 4
"""That draw on a GPU's machine: one draws about as fast as a CPU learns, a GPU learns many times as fast."""


def steps(
    pool: Callable[[int], Sequence[Step]], first: int, n_steps: int, steps_per_pool: int, device: torch.device
) -> Iterator[tuple[int, Step]]:
    """The number and the reading matter of the steps `first` … `n_steps − 1`.

    pool: index → the steps `index · steps_per_pool …`, a function of the index alone that other processes can import.
    """
    pools = range(first // steps_per_pool, -(-n_steps // steps_per_pool))
    drawn = map(pool, pools) if device.type == "cpu" else drawn_ahead(pool, pools, PROCESSES)
    reading = (step for each in drawn for step in each)
    return zip(range(first, n_steps), islice(reading, first % steps_per_pool, None), strict=False)


def drawn_ahead(
    pool: Callable[[int], Sequence[Step]], indices: range, processes: int
) -> Iterator[Sequence[Step]]:
    """`pool` of each index in order, drawn by so many processes, which are at most two pools each ahead."""
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=spawn, initializer=die_with_parent)
    try:
        left = iter(indices)
        waiting = deque(executor.submit(pool, index) for index in islice(left, 2 * processes))
        while waiting:
            each = waiting.popleft().result()
            waiting.extend(executor.submit(pool, index) for index in islice(left, 1))
            yield each
    finally:
        executor.shutdown(cancel_futures=True)
