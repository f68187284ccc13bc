"""What a policy did, row by row: kept on the device while it happens, sorted when events are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int

from normprobe.engines.base import Events
from normprobe.policies.rows import Change, Rows, norms


@dataclass(frozen=True)
class PolicyCall:
    """One call of a policy at one layer. delta (−1 where it did not act), passes: as `Events`; None if not recorded."""

    norm: Float[torch.Tensor, " row"]
    triggered: Bool[torch.Tensor, " row"]
    delta: Float[torch.Tensor, " row"] | None = None
    passes: Int[torch.Tensor, " row"] | None = None

    @classmethod
    def of(cls, rows: Rows, change: Change, *, whole: bool) -> PolicyCall:
        """The record of a call; `whole`: with what a recorder needs."""
        norm, triggered = norms(rows.hidden), change.triggered
        if not whole:
            return cls(norm, triggered)
        delta = torch.where(triggered, norms(change.hidden.float() - rows.hidden.float()), -1.0)
        passes = torch.zeros_like(rows.slot) if change.passes is None else change.passes.to(rows.slot)
        return cls(norm, triggered, delta, passes)


@dataclass(frozen=True)
class PassRecord:
    """The calls of a policy in one forward pass, one per layer in ascending order."""

    slot: Int[torch.Tensor, " row"]
    step: Int[torch.Tensor, " row"]
    norm: Float[torch.Tensor, "layer row"]
    triggered: Bool[torch.Tensor, "layer row"]
    delta: Float[torch.Tensor, "layer row"] | None
    passes: Int[torch.Tensor, "layer row"] | None

    @classmethod
    def of(
        cls, slot: Int[torch.Tensor, " row"], step: Int[torch.Tensor, " row"], calls: Sequence[PolicyCall]
    ) -> PassRecord:
        norm, triggered = (
            torch.stack([call.norm for call in calls]),
            torch.stack([call.triggered for call in calls]),
        )
        delta = [call.delta for call in calls if call.delta is not None]
        passes = [call.passes for call in calls if call.passes is not None]
        whole = (torch.stack(delta), torch.stack(passes)) if delta else (None, None)
        return cls(slot, step, norm, triggered, *whole)

    def copied(self) -> PassRecord:
        """A copy in memory of its own, since the next pass of a CUDA graph overwrites what this one returned."""
        made = {name: getattr(self, name) for name in ("step", "norm", "triggered", "delta", "passes")}
        return replace(self, **{name: None if t is None else t.clone() for name, t in made.items()})


@dataclass
class Recorder:
    """Collects events. Rows without one are dropped in `events` only: the host would have to wait at each call."""

    layers: Sequence[int]
    _passes: list[PassRecord] = field(default_factory=list)

    def keep(self, record: PassRecord) -> None:
        self._passes.append(record)

    def events(self) -> Events:
        """All of them so far, on the CPU."""
        slot, step = (
            torch.cat(
                [getattr(record, name).expand_as(record.norm).flatten() for record in self._passes]
            ).cpu()
            for name in ("slot", "step")
        )
        delta, passes = (
            torch.cat([getattr(record, name).flatten() for record in self._passes]).cpu()
            for name in ("delta", "passes")
        )
        numbers = torch.tensor(self.layers)[:, None]
        layer = torch.cat([numbers.expand(record.norm.shape).flatten() for record in self._passes])
        key = (slot * (int(step.max()) + 1) + step) * (int(layer.max()) + 1) + layer
        order = torch.where(delta >= 0, key, -1).argsort()[int((delta < 0).sum()) :]
        return Events(slot[order], step[order], layer[order], delta[order], passes[order])
