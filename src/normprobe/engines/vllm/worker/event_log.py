"""What policies did to the requests that ask for it: step, ‖Δh‖ and extra passes, by layer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int

from normprobe.policies.rows import Change, Rows, norms

UNREAD = 4096
"""Calls of policies whose results stay on the device before the host reads them: a read waits for the device."""


class EventLog:
    """The events of the requests in some slots, as `normprobe.engines.base.Events` describes them."""

    def __init__(self) -> None:
        self._unread: list[
            tuple[Int[torch.Tensor, "slot_step_layer_passes row"], Float[torch.Tensor, " row"]]
        ] = []
        self._read: dict[int, list[tuple[int, int, int, float]]] = {}

    def __bool__(self) -> bool:
        """Whether any slot is watched."""
        return bool(self._read)

    def update(self, held: Collection[int], new: Collection[int], wanted: Iterable[int]) -> None:
        """Requests have started and ended. held: the slots in use. new: those of requests that start, of which the ones
        in `wanted` ask for events."""
        if new:
            self._fold()  # what the slots held before ends here
        self._read = {slot: events for slot, events in self._read.items() if slot in held and slot not in new}
        self._read |= {slot: [] for slot in wanted}

    def add(self, rows: Rows, layer: int, change: Change) -> None:
        """Keep one call of a policy; nothing waits for the device."""
        delta = torch.where(change.triggered, norms(change.hidden.float() - rows.hidden.float()), -1.0)
        passes = torch.zeros_like(rows.slot) if change.passes is None else change.passes.to(rows.slot)
        numbers = torch.stack([rows.slot, rows.step, torch.full_like(rows.slot, layer), passes])
        self._unread.append((numbers, delta))
        if len(self._unread) >= UNREAD:
            self._fold()

    def of(self, slot: int) -> dict[str, dict[str, list[Any]]] | None:
        """{layer: {"step", "delta", "passes"}}, by step; None for a request that did not ask. Layers are text."""
        self._fold()
        if slot not in self._read:
            return None
        found: dict[str, dict[str, list[Any]]] = {}
        for step, layer, passes, delta in sorted(self._read[slot]):
            at = found.setdefault(str(layer), {"step": [], "delta": [], "passes": []})
            at["step"].append(step)
            at["delta"].append(delta)
            at["passes"].append(passes)
        return found

    def _fold(self) -> None:
        """Read what is on the device; rows on which no policy acted are dropped here only."""
        if not self._unread:
            return
        numbers = torch.cat([numbers for numbers, _ in self._unread], dim=1)
        delta = torch.cat([delta for _, delta in self._unread])
        self._unread = []
        acted = delta >= 0
        events = zip(*numbers[:, acted].tolist(), delta[acted].tolist(), strict=True)
        for slot, step, layer, passes, size in events:
            if slot in self._read:
                self._read[slot].append((step, layer, passes, size))
