"""Suppression of the states above a threshold that may adapt to each request (arXiv 2606.06188).

The paper's causal experiment adapts τ per layer. It scales a state above τ by 0.1; its code can also clamp the state to
a norm of τ/4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float

from normprobe.policies.checks import check_within
from normprobe.policies.ops import peaks
from normprobe.policies.policy import Cost, RunningPolicy
from normprobe.policies.rows import Change, Rerun, Rows
from normprobe.policies.threshold import ThresholdPolicy

PAPER_SCALE = 0.1
"""What is left of a suppressed state in the paper."""


def check_scale(scale: float) -> None:
    """Raises NormprobeError unless the factor shortens a state and leaves its direction."""
    check_within("a suppression factor", scale, 0, 1, f"try {PAPER_SCALE}")


@dataclass(frozen=True)
class Suppression(ThresholdPolicy):
    """h → scale · h for eligible states with ‖h‖ > τ.

    Raises NormprobeError for a scale outside [0, 1].
    """

    scale: float = PAPER_SCALE

    name: ClassVar[str] = "suppress"
    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def cost(self, state_bytes: int) -> Cost:
        return Cost(self.threshold.bytes_per_slot)

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningSuppression(self, n_slots, device)

    def factor(
        self, norm: Float[torch.Tensor, " row"], tau: Float[torch.Tensor, " row"]
    ) -> Float[torch.Tensor, " row"]:
        """What is left of each state, if it is above τ."""
        return torch.full_like(norm, self.scale)


@dataclass(frozen=True)
class Clamp(ThresholdPolicy):
    """h → (fraction · τ / ‖h‖) · h for eligible states with ‖h‖ > τ: all left at one norm, a fraction of τ.

    Raises NormprobeError for a fraction outside [0, 1].
    """

    fraction: float = 0.25

    name: ClassVar[str] = "clamp"
    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        check_within("a fraction of τ", self.fraction, 0, 1, "the paper's code has 0.25")

    def cost(self, state_bytes: int) -> Cost:
        return Cost(self.threshold.bytes_per_slot)

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningSuppression(self, n_slots, device)

    def factor(
        self, norm: Float[torch.Tensor, " row"], tau: Float[torch.Tensor, " row"]
    ) -> Float[torch.Tensor, " row"]:
        """What is left of each state, if it is above τ."""
        return self.fraction * tau / norm


class _RunningSuppression(RunningPolicy):
    def __init__(self, settings: Suppression | Clamp, n_slots: int, device: torch.device) -> None:
        self.settings = settings
        self.threshold = settings.threshold.start(n_slots, device)

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.threshold.reset(slots)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows, those above τ shortened. The threshold observes the norms from before."""
        tau, eligible = self.threshold.tau(layer, rows.slot), rows.eligible
        norm, chosen = peaks(rows.hidden, tau, eligible)
        self.threshold.observe(layer, rows.slot, norm, eligible)
        shortened = (self.settings.factor(norm, tau)[:, None] * rows.hidden).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], shortened, rows.hidden), chosen)

    def finish(self) -> None:
        self.threshold.finish()
