"""Direction only: give high-norm states an ordinary norm and keep their direction.

A control of the causal experiment (arXiv 2606.06188) that the paper does not have: scaling by 0.1 both
removes what the norm says and leaves a state far shorter than any that the later layers know; this only removes what
the norm says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.policy import Stateless
from normprobe.policies.rows import Change, Rerun, Rows, norms
from normprobe.policies.threshold import FixedThreshold


@dataclass(frozen=True)
class DirectionOnly(Stateless):
    """h → (ordinary / ‖h‖) · h for eligible states with ‖h‖ > τ.

    ordinary: layer → norm in activation units, as a layer profile's median.

    Raises NormprobeError unless each layer of the threshold has an ordinary norm above 0.
    """

    threshold: FixedThreshold
    ordinary: Mapping[int, float]

    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        for layer in self.layers:
            if not 0 < self.ordinary.get(layer, math.nan) < math.inf:
                raise NormprobeError(
                    f"expected an ordinary norm above 0 for layer {layer}, got {self.ordinary.get(layer)}; "
                    "take the median from a layer profile"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        return self.threshold.layers

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows with the chosen ones brought to the layer's ordinary norm."""
        norm = norms(rows.hidden)
        chosen = rows.eligible & (norm > self.threshold.tau[layer])
        scaled = ((self.ordinary[layer] / norm)[:, None] * rows.hidden).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], scaled, rows.hidden), chosen)
