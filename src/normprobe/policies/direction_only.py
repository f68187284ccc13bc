"""Direction only: erase what the norm of a high-norm state says, and nothing else.

A control of the causal experiment (arXiv 2606.06188) that the paper does not have: scaling by 0.1 both takes the norm's
message away and leaves a state far shorter than any that the later layers know; this takes the message alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.rows import Change, Rerun, Rows, Stateless, norms
from normprobe.policies.suppression import Suppression


@dataclass(frozen=True)
class DirectionOnly(Stateless):
    """Give the states that `suppression` chooses an ordinary norm; their direction stays.

    ordinary: layer → norm in activation units, as a layer profile's median.

    Raises NormprobeError unless each layer of the suppression has an ordinary norm above 0.
    """

    suppression: Suppression
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
        return self.suppression.layers

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows with the chosen ones brought to the layer's ordinary norm."""
        chosen = self.suppression.chosen(rows, layer)
        # The smallest divisor only guards the zero state, which has no direction and stays.
        factor = self.ordinary[layer] / norms(rows.hidden).clamp_min(1e-12)
        scaled = (factor[:, None] * rows.hidden).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], scaled, rows.hidden), chosen)
