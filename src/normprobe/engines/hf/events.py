"""What a policy did, row by row: kept on the device as it happens, sorted out when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int

from normprobe.policies.rows import Change, Rows, norms


class UntriggeredWarning(UserWarning):
    """A policy was asked about every state and acted on none."""


@dataclass(frozen=True)
class Events:
    """Where a policy acted, one entry per row, ordered by slot, step and layer whatever the batches were.

    delta: ‖Δh‖ in activation units, float32; 0 where an extra pass was made and thrown away.
    passes: extra passes of the layer that the row was given; 0 for policies that make none.
    """

    slot: Int[torch.Tensor, " event"]
    step: Int[torch.Tensor, " event"]
    layer: Int[torch.Tensor, " event"]
    delta: Float[torch.Tensor, " event"]
    passes: Int[torch.Tensor, " event"]

    @classmethod
    def joined(cls, parts: Sequence[tuple[Events, Sequence[int]]]) -> Events:
        """The events of several batches; each with what its slots are called here."""
        slot = torch.cat([torch.tensor(names)[events.slot] for events, names in parts])
        order = slot.argsort(stable=True)
        step, layer, delta, passes = (
            torch.cat([getattr(events, name) for events, _ in parts])[order]
            for name in ("step", "layer", "delta", "passes")
        )
        return cls(slot[order], step, layer, delta, passes)


@dataclass(frozen=True)
class Seen:
    """One call of a policy. delta, passes: as in `Events`, −1 where it did not act; None if nobody asks for them."""

    norm: Float[torch.Tensor, " row"]
    triggered: Bool[torch.Tensor, " row"]
    delta: Float[torch.Tensor, " row"] | None = None
    passes: Int[torch.Tensor, " row"] | None = None

    @classmethod
    def of(cls, rows: Rows, change: Change, *, whole: bool) -> Seen:
        """What has to be known of a call; `whole`: for a recorder too."""
        norm, triggered = norms(rows.hidden), change.triggered
        if not whole:
            return cls(norm, triggered)
        delta = torch.where(triggered, norms(change.hidden.float() - rows.hidden.float()), -1.0)
        passes = torch.zeros_like(rows.slot) if change.passes is None else change.passes.to(rows.slot)
        return cls(norm, triggered, delta, passes)


@dataclass(frozen=True)
class Noted:
    """The calls of a pass, one per layer of the policy in ascending order."""

    slot: Int[torch.Tensor, " row"]
    step: Int[torch.Tensor, " row"]
    norm: Float[torch.Tensor, "layer row"]
    triggered: Bool[torch.Tensor, "layer row"]
    delta: Float[torch.Tensor, "layer row"] | None
    passes: Int[torch.Tensor, "layer row"] | None

    @classmethod
    def of(
        cls, slot: Int[torch.Tensor, " row"], step: Int[torch.Tensor, " row"], seen: Sequence[Seen]
    ) -> Noted:
        norm, triggered = (
            torch.stack([call.norm for call in seen]),
            torch.stack([call.triggered for call in seen]),
        )
        delta = [call.delta for call in seen if call.delta is not None]
        passes = [call.passes for call in seen if call.passes is not None]
        whole = (torch.stack(delta), torch.stack(passes)) if delta else (None, None)
        return cls(slot, step, norm, triggered, *whole)

    def copied(self) -> Noted:
        """The same in memory of its own: what a CUDA graph reads and returns is overwritten for its next pass."""
        made = {name: getattr(self, name) for name in ("step", "norm", "triggered", "delta", "passes")}
        return replace(self, **{name: None if t is None else t.clone() for name, t in made.items()})


@dataclass
class Recorder:
    """Collects events. Rows without one are dropped only in `events`: the host would have to wait at each call."""

    layers: Sequence[int]
    _passes: list[Noted] = field(default_factory=list)

    def keep(self, noted: Noted) -> None:
        self._passes.append(noted)

    def events(self) -> Events:
        """All of them so far, on the CPU."""
        slot, step = (
            torch.cat([getattr(noted, name).expand_as(noted.norm).flatten() for noted in self._passes]).cpu()
            for name in ("slot", "step")
        )
        delta, passes = (
            torch.cat([getattr(noted, name).flatten() for noted in self._passes]).cpu()
            for name in ("delta", "passes")
        )
        numbers = torch.tensor(self.layers)[:, None]
        layer = torch.cat([numbers.expand(noted.norm.shape).flatten() for noted in self._passes])
        key = (slot * (int(step.max()) + 1) + step) * (int(layer.max()) + 1) + layer
        order = torch.where(delta >= 0, key, -1).argsort()[int((delta < 0).sum()) :]
        return Events(slot[order], step[order], layer[order], delta[order], passes[order])
