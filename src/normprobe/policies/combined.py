"""Several policies at once, each seeing what the ones before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.rows import Acting, Change, Policy, Rerun, Rows


@dataclass(frozen=True)
class Combined:
    """Policies applied in order at every layer.

    Raises NormprobeError for policies that conflict at a layer: two of one kind, or a suppression with any other that
    changes states (what is shortened no longer shows its norm). A probe conflicts with nothing.
    """

    policies: tuple[Policy, ...]

    kind: ClassVar[str] = "combined"

    def __post_init__(self) -> None:
        if not self.policies:
            raise NormprobeError("expected at least one policy, got none; name one")
        for one, other in combinations(self.policies, 2):
            kinds = {one.kind, other.kind}
            shared = sorted(set(one.layers) & set(other.layers))
            if shared and "probe" not in kinds and (len(kinds) == 1 or "suppression" in kinds):
                raise NormprobeError(
                    f"expected policies that do not conflict, got {one.kind} and {other.kind} both at layers {shared}; "
                    "give them different layers"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for policy in self.policies for layer in policy.layers}))

    def start(self, n_slots: int, d: int, device: torch.device) -> Acting:
        return _Together(
            [(frozenset(policy.layers), policy.start(n_slots, d, device)) for policy in self.policies]
        )


@dataclass(frozen=True)
class _Together:
    parts: list[tuple[frozenset[int], Acting]]

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        for _, acting in self.parts:
            acting.reset(slots, requests)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The changes of all, one after the other; extra passes add up."""
        hidden, triggered = rows.hidden, torch.zeros_like(rows.eligible)
        passes = torch.zeros_like(rows.slot)
        for layers, acting in self.parts:
            if layer in layers:
                change = acting.apply(Rows(hidden, rows.slot, rows.step, rows.entropy), layer, rerun)
                hidden, triggered = change.hidden, triggered | change.triggered
                passes = passes if change.passes is None else passes + change.passes
        return Change(hidden, triggered, passes)

    def finish(self) -> None:
        for _, acting in self.parts:
            acting.finish()
