"""What a forward pass holds: which of its rows belong to which slot, at which step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from normprobe.engines.vllm.worker.slots import Held


@dataclass(frozen=True)
class Batch:
    """A pass as the model runner has it, on the host. Requests in the order of the batch.

    start: the first row of each request, and the end of the last. computed: tokens of each request before this pass.
    prompt: tokens of each prompt.
    """

    requests: Sequence[str]
    start: Int[np.ndarray, " request_and_end"]
    computed: Int[np.ndarray, " request"]
    prompt: Int[np.ndarray, " request"]


@dataclass(frozen=True)
class Placed:
    """Eligible rows of one policy, at most one of each slot.

    index: rows of the pass. slot, step: see `normprobe.policies.rows`. request: positions in the batch.
    position: of the token, from 0.
    On the device: index, slot, step. On the host: request, position.
    """

    index: Int[torch.Tensor, " row"]
    slot: Int[torch.Tensor, " row"]
    step: Int[torch.Tensor, " row"]
    request: Int[np.ndarray, " row"]
    position: Int[np.ndarray, " row"]


def place(batch: Batch, held: Mapping[str, Held], device: torch.device) -> dict[str, list[Placed]]:
    """By policy: its rows in this pass. After the first, each further entry holds later tokens of the same requests.

    A pass usually holds one eligible row of a request; it holds several when a preempted one is computed again.
    """
    mine = [held.get(request) for request in batch.requests]
    placed: dict[str, list[Placed]] = {}
    for policy in dict.fromkeys(one.policy for one in mine if one is not None):
        ours = np.array([i for i, one in enumerate(mine) if one is not None and one.policy == policy])
        slot = np.array([one.slot for one in mine if one is not None and one.policy == policy])
        placed[policy] = list(_by_rank(batch, ours, slot, device))
    return {policy: ranks for policy, ranks in placed.items() if ranks}


def _by_rank(
    batch: Batch, ours: Int[np.ndarray, " request"], slot: Int[np.ndarray, " request"], device: torch.device
) -> Iterator[Placed]:
    start, computed, prompt = (
        x[ours].astype(np.int64) for x in (batch.start[:-1], batch.computed, batch.prompt)
    )
    end = computed + batch.start[1:][ours] - start
    first = np.maximum(computed, prompt - 1)
    for rank in range(max(int((end - first).max()), 0)):
        at = np.flatnonzero(first + rank < end)
        position = first[at] + rank
        rows = np.stack([start[at] + position - computed[at], slot[at], position - prompt[at] + 1])
        index, slots, step = torch.from_numpy(rows).to(device, non_blocking=True)
        yield Placed(index, slots, step, ours[at], position)
