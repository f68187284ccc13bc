"""What the processes of one training send each other: the states that each has read, and how far each has come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import distributed

from normprobe.errors import refusing_damage
from normprobe.ranks import Rank

PATIENCE = timedelta(days=1)
"""How long a process waits for one that is slower. torchrun ends all of them as soon as one has failed."""


@contextmanager
def connected(rank: Rank) -> Iterator[None]:
    """In the block, the processes of torchrun can send each other tensors. Alone, nothing happens."""
    if rank.total == 1:
        yield
        return
    distributed.init_process_group(timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def least(number: int, rank: Rank) -> int:
    """The least of all processes' numbers, which returns when all have called it.

    Raises NormprobeError if another process has ended.
    """
    if rank.total == 1:
        return number
    shared = torch.tensor(number)
    with _refusing_loss(rank):
        distributed.all_reduce(shared, distributed.ReduceOp.MIN)
    return int(shared)


def exchange(
    states: Float[torch.Tensor, "layer mine d"],
    shares: Sequence[Int[np.ndarray, " some"]],
    rank: Rank,
    device: torch.device,
) -> Float[torch.Tensor, "own row d"]:
    """All rows of this process's own layers, on the CPU, where each process has read some rows of all layers.

    shares[i] are the rows that process i has read, so `states` has those of this one. What is sent at once, as many
    layers as there are processes, goes over `device`. Raises NormprobeError if another process has ended.
    """
    n_layers, n_mine, d = states.shape
    row = d * states.element_size()
    rows = torch.from_numpy(np.concatenate(shares))
    whole = states.new_empty((len(rank.own(range(n_layers))), len(rows), d))
    for slot in range(math.ceil(n_layers / rank.total)):
        # Of consecutive layers one is each process's own.
        sent = states[slot * rank.total : (slot + 1) * rank.total]
        to = [row * n_mine if number < len(sent) else 0 for number in range(rank.total)]
        come = [row * len(share) if rank.number < len(sent) else 0 for share in shares]
        received = torch.empty(sum(come), dtype=torch.uint8, device=device)
        with _refusing_loss(rank):
            # As bytes: not every backend knows every dtype.
            distributed.all_to_all_single(received, sent.to(device).flatten().view(torch.uint8), come, to)
        if rank.number < len(sent):
            whole[slot, rows] = received.cpu().view(states.dtype).view(len(rows), d)
    return whole


def _refusing_loss(rank: Rank) -> AbstractContextManager[None]:
    return refusing_damage(
        f"{rank.total} processes of torchrun that train together",
        "see what the first of them to end wrote",
        RuntimeError,
    )
