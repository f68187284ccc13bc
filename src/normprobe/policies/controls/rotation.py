"""Rotation: move the states that a suppression would shorten just as far, but keep their norm.

A control of the causal experiment (arXiv 2606.06188) that the paper does not have: if it hurts as much, the harm is
that of any disturbance at these tokens, not of a lost norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int

from normprobe.policies.draws import keys, normal
from normprobe.policies.rows import Change, Rerun, Rows, RunningPolicy, norms, request_key
from normprobe.policies.suppression import PAPER_SCALE, check_scale
from normprobe.policies.threshold import FixedThreshold


@dataclass(frozen=True)
class Rotation:
    """Turn states with ‖h‖ > τ in a random direction, until ‖Δh‖ is what a suppression by `scale` would remove.

    ‖Δh‖ = (1 − scale)·‖h‖ at a fixed norm is a turn by 2·asin((1 − scale)/2), 53° at the paper's 0.1. The direction is
    uniform among those orthogonal to h, keyed by (seed, the request's name, layer, step).

    Raises NormprobeError for a scale outside [0, 1].
    """

    threshold: FixedThreshold
    seed: int
    scale: float = PAPER_SCALE

    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        check_scale(self.scale)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.threshold.layers

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningRotation(self, torch.zeros(n_slots + 1, dtype=torch.int64, device=device))


@dataclass(frozen=True)
class _RunningRotation:
    settings: Rotation
    key: Int[torch.Tensor, " slot"]

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        at = torch.tensor(list(slots), dtype=torch.int64, device=self.key.device)
        self.key[at] = keys([request_key(request) for request in requests], self.key.device)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows with the chosen ones turned."""
        settings = self.settings
        chosen = rows.eligible & (norms(rows.hidden) > settings.threshold.tau[layer])
        angle = rows.hidden.new_full(
            (len(rows.slot), 1), 2 * math.asin((1 - settings.scale) / 2), dtype=torch.float32
        )
        drawn = normal(self.key[rows.slot], layer, rows.step, settings.seed, rows.hidden.shape[1])
        turned = turn(rows.hidden.float(), drawn, angle).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], turned, rows.hidden), chosen)

    def finish(self) -> None: ...


def turn(
    state: Float[torch.Tensor, "row d"],
    towards: Float[torch.Tensor, "row d"],
    angle: Float[torch.Tensor, "row 1"],
) -> Float[torch.Tensor, "row d"]:
    """States of the same norm, turned by an angle (radians) in the plane of state and `towards`; zero stays zero."""
    along = _unit(state)
    across = _unit(towards - (towards * along).sum(dim=-1, keepdim=True) * along)
    return norms(state)[:, None] * (torch.cos(angle) * along + torch.sin(angle) * across)


def _unit(vectors: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row d"]:
    """Unit vectors; the smallest divisor only guards the zero vector, which stays zero."""
    return vectors / norms(vectors).clamp_min(1e-12)[:, None]
