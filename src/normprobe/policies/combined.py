"""Several policies at once, each seeing what the ones before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.policy import Cost, Policy, RunningPolicy
from normprobe.policies.rows import Change, ProbeSummary, Rerun, Rows


@dataclass(frozen=True)
class Combined(Policy):
    """Policies applied in order at every layer.

    Policies conflict by `kind`: two of one kind at a layer, or a suppression with any other that changes states (what
    is shortened no longer shows its norm). A probe conflicts with nothing. A combination within is taken apart.

    Raises NormprobeError for policies that conflict at a layer, or for none.
    """

    policies: tuple[Policy, ...]

    def __post_init__(self) -> None:
        if not self.policies:
            raise NormprobeError("expected at least one policy, got none; name one")
        object.__setattr__(self, "policies", tuple(part for policy in self.policies for part in policy.parts))
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

    @property
    def parts(self) -> tuple[Policy, ...]:
        return self.policies

    @property
    def reads_entropy(self) -> bool:
        return any(policy.reads_entropy for policy in self.policies)

    def cost(self, state_bytes: int) -> Cost:
        return sum((policy.cost(state_bytes) for policy in self.policies), Cost())

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return RunningCombined(
            [(frozenset(policy.layers), policy.start(n_slots, d, device)) for policy in self.policies]
        )


@dataclass(frozen=True)
class RunningCombined(RunningPolicy):
    """A combination at work: its parts in order, each with its layers."""

    parts: list[tuple[frozenset[int], RunningPolicy]]

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        for _, running in self.parts:
            running.reset(slots, requests)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """Apply the parts one after the other; their extra passes add up."""
        hidden, triggered, passes = rows.hidden, torch.zeros_like(rows.eligible), None
        for layers, running in self.parts:
            if layer in layers:
                change = running.apply(replace(rows, hidden=hidden), layer, rerun)
                hidden, triggered = change.hidden, triggered | change.triggered
                if change.passes is not None:
                    passes = change.passes if passes is None else passes + change.passes
        return Change(hidden, triggered, passes)

    def finish(self) -> None:
        for _, running in self.parts:
            running.finish()

    def summary(self, slots: Sequence[int]) -> ProbeSummary | None:
        """The summary of the first part that records one."""
        found = (running.summary(slots) for _, running in self.parts)
        return next((summary for summary in found if summary is not None), None)
