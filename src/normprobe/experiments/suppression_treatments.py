"""The treatments of the suppression experiment: which states each changes, and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.controls.causal import DirectionOnly, LowNormSuppression, Rotation
from normprobe.policies.controls.unchanged import Plain
from normprobe.policies.policy import Policy
from normprobe.policies.suppression import PAPER_SCALE, Suppression
from normprobe.policies.threshold import FixedThreshold


@dataclass(frozen=True)
class Treatment:
    """One way to answer the measured problems.

    factor: what is left of the norm of a changed state; NaN if it differs from state to state.
    policy: (layer profile, seed) → the policy of a treatment that chooses states by their norm.
    doses_of: for the others, the treatment whose doses (‖Δh‖ by state) are moved to random tokens of the same response;
        by_class: to tokens of the same class and place (`token_groups`).
    """

    factor: float
    policy: Callable[[LayerProfile, int], Policy] | None = None
    doses_of: str | None = None
    by_class: bool = False


def _above_tau(factor: float) -> Callable[[LayerProfile, int], Policy]:
    return lambda profile, _seed: Suppression(FixedThreshold.of(profile), factor)


def _same_factor(source: str, factor: float = PAPER_SCALE) -> Treatment:
    """As many random tokens as the source changes, each × factor."""
    return Treatment(factor, doses_of=source)


def _at_factor(factor: float) -> dict[str, Treatment]:
    """The dose–response: high_norm and random_same_factor at a milder factor than the paper's 0.1."""
    name = f"high_norm_{factor}"
    return {
        name: Treatment(factor, _above_tau(factor)),
        f"random_same_factor_{factor}": _same_factor(name, factor),
    }


TREATMENTS: dict[str, Treatment] = {
    "plain": Treatment(1.0, lambda profile, _: Plain(tuple(profile.chosen_layers))),
    # norms above τ, × 0.1: the paper's experiment
    "high_norm": Treatment(PAPER_SCALE, _above_tau(PAPER_SCALE)),
    # as many random tokens, each shortened by the ‖Δh‖ of one of high_norm's
    "random_matched": Treatment(math.nan, doses_of="high_norm"),
    "random_same_factor": _same_factor("high_norm"),
    "class_matched": Treatment(math.nan, doses_of="high_norm", by_class=True),
    # norms above τ, turned by as much ‖Δh‖ at the same norm; more states than high_norm changes, since a turned one is
    # still long in the next layer
    "rotation": Treatment(1.0, lambda profile, seed: Rotation(FixedThreshold.of(profile), seed)),
    # norms above τ, set to the layer's median
    "direction_only": Treatment(
        math.nan, lambda profile, _: DirectionOnly(FixedThreshold.of(profile), _quantiles(profile, 0.5))
    ),
    # as large a share as high_norm from the other end, × 0.1
    "low_norm": Treatment(
        PAPER_SCALE,
        lambda profile, _: LowNormSuppression(
            {x: quantile(profile, x, share_above_tau(profile, x)) for x in profile.chosen_layers}
        ),
    ),
    # norms above the 90th percentile, × 0.1, for models in which τ marks few states
    "top10": Treatment(PAPER_SCALE, lambda profile, _: Suppression(FixedThreshold(_quantiles(profile, 0.9)))),
    "random10": Treatment(math.nan, doses_of="top10"),
    "random10_same_factor": _same_factor("top10"),
    "bottom10": Treatment(PAPER_SCALE, lambda profile, _: LowNormSuppression(_quantiles(profile, 0.1))),
    **_at_factor(0.75),
    **_at_factor(0.5),
    **_at_factor(0.25),
}
"""By name, each after the treatment whose doses it needs. Thresholds and medians are those of the split `select`: the
measured problems have no part in them."""


def quantile(profile: LayerProfile, layer: int, level: float) -> float:
    """Quantile of the norm over thought and answer tokens of mode think, sinks included; linear between levels."""
    return float(np.interp(level, profile.quantile_levels, _think(profile)[layer]))


def share_above_tau(profile: LayerProfile, layer: int) -> float:
    """Share of the same tokens with a norm above τ."""
    return 1 - float(np.interp(profile.tau[layer], _think(profile)[layer], profile.quantile_levels))


def _quantiles(profile: LayerProfile, level: float) -> dict[int, float]:
    return {layer: quantile(profile, layer, level) for layer in profile.chosen_layers}


def _think(profile: LayerProfile) -> list[list[float]]:
    if "think" not in profile.quantiles_with_sinks:
        raise NormprobeError(
            "expected a layer profile of mode think, got one without; make it again with normprobe verify"
        )
    return profile.quantiles_with_sinks["think"]
