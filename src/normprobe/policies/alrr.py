"""ALRR: run a layer once more on its own output where the norm peaks (adaptive layer re-run, arXiv 2606.06188).

For a token with τ < ‖h‖ < b·τ at a chosen layer, h' = (1 − α)·h + α·layer(h), without a cache write. The extra pass is
kept if the norm grew by a share g at least and stays inside the window; then another may follow, up to n.
Paper and code: b = 1.5, n = 1, g = 0.2, α = 1; the demo of the code: n = 10, g = 0.01, b = 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.controls.damped_loop import DampedLoop
from normprobe.policies.controls.gated_recursion import EntropyGate, Gate, GatedRecursion, RandomGate
from normprobe.policies.ops import keep
from normprobe.policies.policy import Cost, Policy, RunningPolicy, check_within
from normprobe.policies.rows import Change, Rerun, Rows
from normprobe.policies.threshold import RunningThresholdPolicy, ThresholdPolicy


@dataclass(frozen=True)
class ALRR(ThresholdPolicy):
    """Extra passes of a layer at its norm peaks.

    threshold: τ by layer. blow_up: b, the window's upper end in units of τ. max_passes: n. growth: g, the least growth
    of the norm that an extra pass is kept for. damping: α, the weight of the extra pass.

    Raises NormprobeError for settings that make no sense.
    """

    blow_up: float = 1.5
    max_passes: int = 1
    growth: float = 0.2
    damping: float = 1.0

    name: ClassVar[str] = "alrr"
    kind: ClassVar[str] = "recursion"

    def __post_init__(self) -> None:
        if not self.blow_up > 1:
            raise NormprobeError(
                f"expected blow_up > 1, the window's end in units of τ, got {self.blow_up}; the paper has 1.5"
            )
        if math.isnan(self.growth):
            raise NormprobeError("expected growth as a share of the norm, got NaN; the paper has 0.2")
        check_within("max_passes", self.max_passes, 1, hint="the paper has 1")
        check_within("damping", self.damping, 0, 1, "the paper has 1")

    def cost(self, state_bytes: int) -> Cost:
        return Cost(self.threshold.bytes_per_slot, self.max_passes * len(self.layers))

    def baselines(
        self,
        rate: Mapping[int, float],
        seed: int,
        entropy_above: Callable[[float], float] | None,
        n_layers: int,
    ) -> dict[str, Policy]:
        """Extra passes at random tokens and at uncertain tokens, as many as here, and damped loops of a block of layers
        that take as many; and both at all tokens."""
        gates: dict[str, Gate] = {"random gate": RandomGate(dict(rate), seed)}
        if entropy_above is not None:
            uncertain = entropy_above(sum(rate.values()) / len(rate))
            gates["entropy gate"] = EntropyGate(self.layers, uncertain)
        gates["always on"] = RandomGate(dict.fromkeys(self.layers, 1.0))
        found: dict[str, Policy] = {
            name: GatedRecursion(gate, self.max_passes, self.damping) for name, gate in gates.items()
        }
        passes = self.max_passes * sum(rate.values())
        found["damped loop"] = DampedLoop.of(n_layers, passes, seed)
        found["damped loop, always on"] = DampedLoop.of(n_layers, math.inf, seed)
        return found

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningALRR(self, n_slots, device)


class _RunningALRR(RunningThresholdPolicy):
    def __init__(self, settings: ALRR, n_slots: int, device: torch.device) -> None:
        super().__init__(settings, n_slots, device)
        self.settings = settings

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        s = self.settings
        tau, norm, triggered = self.peaks(rows, layer, s.blow_up)
        hidden, active, passes = rows.hidden, triggered, torch.zeros_like(rows.slot)
        for _ in range(s.max_passes):
            out = rerun(active, hidden)
            if out is None:
                break
            passes = passes + active
            hidden, norm, active = keep(
                hidden, out, norm, tau, active, damping=s.damping, growth=s.growth, blow_up=s.blow_up
            )
        return Change(hidden, triggered, passes)
