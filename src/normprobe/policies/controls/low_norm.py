"""Suppression of the lowest norms: a control of the causal experiment at the other end (arXiv 2606.06188)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.policy import Stateless
from normprobe.policies.rows import Change, Rerun, Rows, norms
from normprobe.policies.suppression import PAPER_SCALE, check_scale


@dataclass(frozen=True)
class LowNormSuppression(Stateless):
    """h → scale · h for eligible states with ‖h‖ < bound.

    bound: layer → norm in activation units. scale: in [0, 1].

    Raises NormprobeError for no bound, one that no norm is below, or a scale outside [0, 1].
    """

    bound: Mapping[int, float]
    scale: float = PAPER_SCALE

    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        if not self.bound:
            raise NormprobeError("expected a norm bound for at least one layer, got none; name the layers")
        check_scale(self.scale)
        for layer, bound in self.bound.items():
            if not bound > 0:
                raise NormprobeError(
                    f"expected a norm bound above 0 for layer {layer}, got {bound}; use a layer profile's quantile"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.bound))

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows with the low ones scaled."""
        chosen = rows.eligible & (norms(rows.hidden) < self.bound[layer])
        return Change(torch.where(chosen[:, None], self.scale * rows.hidden, rows.hidden), chosen)
