"""Suppression of the states above a threshold that may adapt to each request (arXiv 2606.06188).

The paper's causal experiment adapts τ per layer. It scales a state above τ by 0.1; its code can also clamp the state to
a norm of τ/4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.policies.policy import RunningPolicy, check_within
from normprobe.policies.rows import Change, Rerun, Rows
from normprobe.policies.threshold import RunningThresholdPolicy, ThresholdPolicy

PAPER_SCALE = 0.1
"""What is left of a suppressed state in the paper."""


def check_scale(scale: float) -> None:
    """Raises NormprobeError unless the factor shortens a state and leaves its direction."""
    check_within("a suppression factor", scale, 0, 1, f"try {PAPER_SCALE}")


@dataclass(frozen=True)
class Suppression(ThresholdPolicy):
    """h → scale · h for eligible states with ‖h‖ > τ. Raises NormprobeError for a scale outside [0, 1]."""

    scale: float = PAPER_SCALE

    name: ClassVar[str] = "suppress"
    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningSuppression(self, n_slots, device, lambda norm, _: torch.full_like(norm, self.scale))


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

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningSuppression(self, n_slots, device, lambda norm, tau: self.fraction * tau / norm)


class _RunningSuppression(RunningThresholdPolicy):
    """factor: what is left of a state above τ, given its norm and τ."""

    def __init__(
        self,
        settings: ThresholdPolicy,
        n_slots: int,
        device: torch.device,
        factor: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__(settings, n_slots, device)
        self._factor = factor

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        tau, norm, chosen = self.peaks(rows, layer)
        shortened = (self._factor(norm, tau)[:, None] * rows.hidden).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], shortened, rows.hidden), chosen)
