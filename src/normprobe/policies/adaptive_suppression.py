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

from normprobe.errors import NormprobeError
from normprobe.policies.fused import peaks
from normprobe.policies.rows import Acting, Change, Rerun, Rows
from normprobe.policies.suppression import PAPER_SCALE, check_scale
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold


@dataclass(frozen=True)
class AdaptiveSuppression:
    """h → scale · h for eligible states with ‖h‖ > τ; with a fixed threshold the same as `Suppression.above`.

    Raises NormprobeError for a scale outside [0, 1].
    """

    threshold: FixedThreshold | AdaptiveThreshold
    scale: float = PAPER_SCALE

    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        check_scale(self.scale)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.threshold.layers

    def start(self, n_slots: int, d: int, device: torch.device) -> Acting:
        return _Suppressing(self, n_slots, device)

    def factor(
        self, norm: Float[torch.Tensor, " row"], tau: Float[torch.Tensor, " row"]
    ) -> Float[torch.Tensor, " row"]:
        """What is left of each state, if it is above τ."""
        return torch.full_like(norm, self.scale)


@dataclass(frozen=True)
class Clamp:
    """h → (fraction · τ / ‖h‖) · h for eligible states with ‖h‖ > τ: all left at one norm, a fraction of τ.

    Raises NormprobeError for a fraction outside [0, 1].
    """

    threshold: FixedThreshold | AdaptiveThreshold
    fraction: float = 0.25

    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise NormprobeError(
                f"expected a fraction of τ in [0, 1], got {self.fraction}; the paper's code has 0.25"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        return self.threshold.layers

    def start(self, n_slots: int, d: int, device: torch.device) -> Acting:
        return _Suppressing(self, n_slots, device)

    def factor(
        self, norm: Float[torch.Tensor, " row"], tau: Float[torch.Tensor, " row"]
    ) -> Float[torch.Tensor, " row"]:
        """What is left of each state, if it is above τ."""
        return self.fraction * tau / norm


class _Suppressing:
    def __init__(self, settings: AdaptiveSuppression | Clamp, n_slots: int, device: torch.device) -> None:
        self.settings = settings
        self.threshold = settings.threshold.start(n_slots, device)

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.threshold.reset(slots)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows with those above τ shortened. The threshold learns from the norms before that."""
        tau, eligible = self.threshold.tau(layer, rows.slot), rows.eligible
        norm, chosen = peaks(rows.hidden, tau, eligible)
        self.threshold.see(layer, rows.slot, norm, eligible)
        shortened = (self.settings.factor(norm, tau)[:, None] * rows.hidden).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], shortened, rows.hidden), chosen)

    def finish(self) -> None:
        self.threshold.finish()
