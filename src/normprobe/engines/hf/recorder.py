"""What a policy did, row by row: kept on the device while it happens, sorted when events are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int

from normprobe.engines.base import Events
from normprobe.policies.rows import Change, RowInts, Rows, norms


@dataclass(frozen=True)
class PassRecord:
    """The calls of a policy in one forward pass, one per layer in ascending order.

    delta (−1 where it did not act), passes: as `Events`; None if no events are kept.
    """

    slot: RowInts
    step: RowInts
    norm: Float[torch.Tensor, "layer row"]
    triggered: Bool[torch.Tensor, "layer row"]
    delta: Float[torch.Tensor, "layer row"] | None = None
    passes: Int[torch.Tensor, "layer row"] | None = None

    def copied(self) -> PassRecord:
        """A copy in memory of its own, since the next pass of a CUDA graph overwrites what this one returned."""
        made = {name: getattr(self, name) for name in ("step", "norm", "triggered", "delta", "passes")}
        return replace(self, **{name: None if t is None else t.clone() for name, t in made.items()})


def record_call(rows: Rows, change: Change, events: bool) -> tuple[torch.Tensor, ...]:
    """One layer of a `PassRecord`: norm and triggered; with `events` also delta and passes."""
    norm, triggered = norms(rows.hidden), change.triggered
    if not events:
        return norm, triggered
    delta = torch.where(triggered, norms(change.hidden.float() - rows.hidden.float()), -1.0)
    passes = torch.zeros_like(rows.slot) if change.passes is None else change.passes.to(rows.slot)
    return norm, triggered, delta, passes


def events_of(passes: Sequence[PassRecord], layers: Sequence[int]) -> Events:
    """The events of these passes at these layers, on the CPU.

    Rows without one are dropped here only: the host would have to wait at each call of a policy.
    """
    by_pass = [(p.slot, p.step, p.slot.new_tensor(layers)[:, None], p.delta, p.passes) for p in passes]
    slot, step, layer, delta, extra = (
        torch.cat([part.expand_as(p.norm).flatten() for p, part in zip(passes, parts, strict=True)]).cpu()
        for parts in zip(*by_pass, strict=True)
    )
    key = (slot * (int(step.max()) + 1) + step) * (int(layer.max()) + 1) + layer
    order = torch.where(delta >= 0, key, -1).argsort()[int((delta < 0).sum()) :]
    return Events(slot[order], step[order], layer[order], delta[order], extra[order])
