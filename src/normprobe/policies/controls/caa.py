"""Contrastive activation addition (CAA, arXiv 2312.06681): the baseline of ERSS with a vector fixed beforehand.

The baselines that act on the very tokens of ERSS are directions of `ERSS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError
from normprobe.policies.policy import Policy, RunningPolicy
from normprobe.policies.rows import Change, Rerun, Rows


@dataclass(frozen=True, eq=False)
class CAA(Policy):
    """h → h + β·v at every eligible token, v a fixed vector of the layer.

    vectors: by layer, in activation units; in CAA the mean difference of the states of contrasting answers.
    beta: the multiplier; negative ones steer away from what v stands for.

    Raises NormprobeError for no vector, one that is not finite, or a beta that is not; on `start`, for another width.
    """

    vectors: Mapping[int, Float[torch.Tensor, " d"]]
    beta: float = 1.0

    kind: ClassVar[str] = "steering"

    def __post_init__(self) -> None:
        if not self.vectors:
            raise NormprobeError("expected a vector for at least one layer, got none; name the layers")
        if not math.isfinite(self.beta):
            raise NormprobeError(f"expected a finite beta, got {self.beta}; 1 adds the vector as it is")
        if bad := [layer for layer, vector in self.vectors.items() if not vector.isfinite().all()]:
            raise NormprobeError(
                f"expected finite vectors, got NaN or infinity at layers {bad}; make them anew"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.vectors))

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        if bad := {layer: len(vector) for layer, vector in self.vectors.items() if len(vector) != d}:
            raise NormprobeError(
                f"expected vectors of the model's width {d}, got {bad}; use vectors of this model"
            )
        # β·v in float32, so that the sum alone is rounded to the model's dtype.
        return _RunningCAA(
            {layer: self.beta * vector.to(device).float() for layer, vector in self.vectors.items()}
        )


@dataclass(frozen=True)
class _RunningCAA(RunningPolicy):
    added: Mapping[int, Float[torch.Tensor, " d"]]

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        moved = (rows.hidden + self.added[layer]).to(rows.hidden.dtype)
        return Change(torch.where(rows.eligible[:, None], moved, rows.hidden), rows.eligible)
