"""The arms of the suppression experiment: which states each shortens, from a layer profile alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.rows import Policy
from normprobe.policies.suppression import PAPER_SCALE, Doses, ReplayedSuppression, Suppression

ARMS = (
    "plain",
    "high_norm",
    "random_matched",
    "random_same_factor",
    "low_norm",
    "top10",
    "random10",
    "random10_same_factor",
    "bottom10",
)
"""plain: no state is touched. high_norm: norms above τ, × 0.1 (the paper's experiment). low_norm: as large a share from
the other end. top10, bottom10: the norms above the 90th and below the 10th percentile, × 0.1, for models in which τ
marks few states. random_matched, random10: as many random tokens as high_norm, top10 changed in the same problem, each
shortened by the ‖Δh‖ of one of those; *_same_factor: the same tokens × 0.1. Thresholds are those of the split `select`:
the measured problems have no say in them."""

SOURCE_OF = {
    "random_matched": "high_norm",
    "random_same_factor": "high_norm",
    "random10": "top10",
    "random10_same_factor": "top10",
}
"""Random arm → the arm whose doses it deals out anew."""

FACTOR = {"plain": 1.0, "random_matched": math.nan, "random10": math.nan}
"""The factor on a suppressed state, where it is not the paper's 0.1; NaN: it differs from state to state."""


def in_order(arms: Sequence[str]) -> list[str]:
    """The arms so that each comes after the one whose doses it needs.

    Raises NormprobeError for an unknown or missing arm.
    """
    if unknown := sorted(set(arms) - set(ARMS)):
        raise NormprobeError(
            f"expected arms among {', '.join(ARMS)}, got {', '.join(unknown)}; correct the list"
        )
    if missing := sorted({SOURCE_OF[arm] for arm in arms if arm in SOURCE_OF} - set(arms)):
        raise NormprobeError(
            f"expected {', '.join(missing)} among the arms, since a random arm copies it, got none; add it"
        )
    return [arm for arm in ARMS if arm in arms]


def policy_of(
    arm: str, profile: LayerProfile, doses: Mapping[str, Doses], problem_ids: Sequence[str], seed: int
) -> Policy:
    """The policy of one arm, slots counting `problem_ids`; `doses` holds those of the arms before it."""
    if arm in SOURCE_OF:
        scale = PAPER_SCALE if arm.endswith("same_factor") else None
        return ReplayedSuppression(doses[SOURCE_OF[arm]].shuffled(problem_ids, seed), scale)
    layers = profile.chosen_layers
    match arm:
        case "plain":
            return Suppression.above(dict.fromkeys(layers, math.inf))
        case "high_norm":
            return Suppression.above({layer: profile.tau[layer] for layer in layers})
        case "low_norm":
            return Suppression.below(
                {layer: quantile(profile, layer, share_above_tau(profile, layer)) for layer in layers}
            )
        case "top10":
            return Suppression.above({layer: quantile(profile, layer, 0.9) for layer in layers})
        case _:
            return Suppression.below({layer: quantile(profile, layer, 0.1) for layer in layers})


def quantile(profile: LayerProfile, layer: int, level: float) -> float:
    """Quantile of the norm over thought and answer tokens of mode think, sinks included; linear between levels."""
    return float(np.interp(level, profile.quantile_levels, _think(profile)[layer]))


def share_above_tau(profile: LayerProfile, layer: int) -> float:
    """Share of the same tokens with a norm above τ."""
    return 1 - float(np.interp(profile.tau[layer], _think(profile)[layer], profile.quantile_levels))


def _think(profile: LayerProfile) -> list[list[float]]:
    if "think" not in profile.quantiles_with_sinks:
        raise NormprobeError(
            "expected a layer profile of mode think, got one without; make it again with normprobe verify"
        )
    return profile.quantiles_with_sinks["think"]
