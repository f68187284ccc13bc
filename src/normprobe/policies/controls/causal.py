"""Controls of the causal experiment: other states shortened, or high-norm states changed in another way.

The paper (arXiv 2606.06188) has that of low norms; rotation and direction only are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.draws import RequestKeys, normal
from normprobe.policies.ops import turn
from normprobe.policies.policy import Cost, Policy, RunningPolicy, Stateless
from normprobe.policies.rows import Change, Rerun, Rows, norms
from normprobe.policies.suppression import PAPER_SCALE, check_scale
from normprobe.policies.threshold import FixedThreshold


@dataclass(frozen=True)
class LowNormSuppression(Stateless):
    """Shorten the lowest norms: h → scale · h for eligible states with ‖h‖ < bound.

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
        chosen = rows.eligible & (norms(rows.hidden) < self.bound[layer])
        return Change(torch.where(chosen[:, None], self.scale * rows.hidden, rows.hidden), chosen)


@dataclass(frozen=True)
class DirectionOnly(Stateless):
    """Give high-norm states an ordinary norm: h → (ordinary / ‖h‖) · h for eligible states with ‖h‖ > τ.

    Scaling by 0.1 both removes what the norm says and leaves a state far shorter than any that the later layers know;
    this only removes what the norm says.

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
        norm = norms(rows.hidden)
        chosen = rows.eligible & (norm > self.threshold.tau[layer])
        scaled = ((self.ordinary[layer] / norm)[:, None] * rows.hidden).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], scaled, rows.hidden), chosen)


@dataclass(frozen=True)
class Rotation(Policy):
    """Turn states with ‖h‖ > τ in a random direction, until ‖Δh‖ is what a suppression by `scale` would remove.

    If it hurts as much, the harm is that of any disturbance at these tokens, not of a lost norm.

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
        settings = self.settings
        chosen = rows.eligible & (norms(rows.hidden) > settings.threshold.tau[layer])
        angle = rows.hidden.new_full(
            (len(rows.slot), 1), 2 * math.asin((1 - settings.scale) / 2), dtype=torch.float32
        )
        drawn = normal(self.keys.of(rows.slot), layer, rows.step, settings.seed, rows.hidden.shape[1])
        turned = turn(rows.hidden.float(), drawn, angle).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], turned, rows.hidden), chosen)
