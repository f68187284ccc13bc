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

from normprobe.policies.draws import RequestKeys, normal
from normprobe.policies.ops import turn
from normprobe.policies.policy import Cost, Policy, RunningPolicy
from normprobe.policies.rows import Change, Rerun, Rows, norms
from normprobe.policies.suppression import PAPER_SCALE, check_scale
from normprobe.policies.threshold import FixedThreshold


@dataclass(frozen=True)
class Rotation(Policy):
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

    def cost(self, state_bytes: int) -> Cost:
        return Cost(RequestKeys.BYTES)

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningRotation(self, RequestKeys(n_slots, device))


@dataclass(frozen=True)
class _RunningRotation(RunningPolicy):
    settings: Rotation
    keys: RequestKeys

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.keys.reset(slots, requests)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows with the chosen ones turned."""
        settings = self.settings
        chosen = rows.eligible & (norms(rows.hidden) > settings.threshold.tau[layer])
        angle = rows.hidden.new_full(
            (len(rows.slot), 1), 2 * math.asin((1 - settings.scale) / 2), dtype=torch.float32
        )
        drawn = normal(self.keys.of(rows.slot), layer, rows.step, settings.seed, rows.hidden.shape[1])
        turned = turn(rows.hidden.float(), drawn, angle).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], turned, rows.hidden), chosen)
