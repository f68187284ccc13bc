"""The treatments of the suppression experiment: which states each changes and how, from a layer profile alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.experiments.token_groups import token_groups
from normprobe.layer_profile import LayerProfile
from normprobe.policies.controls.direction_only import DirectionOnly
from normprobe.policies.controls.low_norm import LowNormSuppression
from normprobe.policies.controls.plain import Plain
from normprobe.policies.controls.replayed_suppression import Doses
from normprobe.policies.controls.rotation import Rotation
from normprobe.policies.rows import Policy
from normprobe.policies.suppression import PAPER_SCALE, Suppression
from normprobe.policies.threshold import FixedThreshold

MILDER = (0.75, 0.5, 0.25)
"""Factors of the dose–response treatments, beside the paper's 0.1."""

TREATMENTS = (
    "plain",
    "high_norm",
    "random_matched",
    "random_same_factor",
    "class_matched",
    "rotation",
    "direction_only",
    "low_norm",
    "top10",
    "random10",
    "random10_same_factor",
    "bottom10",
    *(f"{treatment}_{factor}" for factor in MILDER for treatment in ("high_norm", "random_same_factor")),
)
"""plain: no state is touched. high_norm: norms above τ, × 0.1 (the paper's experiment). random_matched: as many random
tokens as high_norm changed in the same problem, each shortened by the ‖Δh‖ of one of those; random_same_factor: the
same tokens × 0.1; class_matched: as random_matched, but among tokens of the same class and place (`token_groups`).
rotation: norms above τ, turned by as much ‖Δh‖ at the same norm; more states than high_norm changes, since a turned
state is still long in the next layer. direction_only: norms above τ, set to the layer's median. low_norm: as large a
share as high_norm from the other end, × 0.1.
top10, bottom10: the norms above the 90th and below the 10th percentile, × 0.1, for models in which τ marks few states;
random10 and random10_same_factor are to top10 what random_matched and random_same_factor are to high_norm.
high_norm_F, random_same_factor_F: the dose–response, the same pair × F. Thresholds and medians are those of the split
`select`: the measured problems have no say in them."""

DOSES_OF = {
    "random_matched": "high_norm",
    "random_same_factor": "high_norm",
    "class_matched": "high_norm",
    "random10": "top10",
    "random10_same_factor": "top10",
} | {f"random_same_factor_{factor}": f"high_norm_{factor}" for factor in MILDER}
"""Random treatment → the treatment whose doses it deals out anew."""

FACTOR = (
    dict.fromkeys(TREATMENTS, PAPER_SCALE)
    | {
        f"{treatment}_{factor}": factor
        for factor in MILDER
        for treatment in ("high_norm", "random_same_factor")
    }
    | dict.fromkeys(("plain", "rotation"), 1.0)
    | dict.fromkeys(("random_matched", "class_matched", "direction_only", "random10"), math.nan)
)
"""What is left of the norm of a changed state; NaN: it differs from state to state."""


def in_order(treatments: Sequence[str]) -> list[str]:
    """The treatments so that each comes after the one whose doses it needs.

    Raises NormprobeError for an unknown or missing treatment.
    """
    if unknown := sorted(set(treatments) - set(TREATMENTS)):
        raise NormprobeError(
            f"expected treatments among {', '.join(TREATMENTS)}, got {', '.join(unknown)}; correct the list"
        )
    if missing := sorted(
        {DOSES_OF[treatment] for treatment in treatments if treatment in DOSES_OF} - set(treatments)
    ):
        raise NormprobeError(
            f"expected {', '.join(missing)} among the treatments, since a random treatment copies it, got none; add it"
        )
    return [treatment for treatment in TREATMENTS if treatment in treatments]


def dealt(
    treatment: str, doses: Mapping[str, Doses], tokens: pd.DataFrame, problem_ids: Sequence[str], seed: int
) -> Doses:
    """The doses of a random treatment: those of its source (in `doses`), dealt out anew; the requests are
    `problem_ids`.

    tokens: traces/tokens.parquet, which tells the classes of tokens.
    """
    taken = doses[DOSES_OF[treatment]]
    n_steps = taken.delta.shape[1]
    groups = token_groups(tokens, problem_ids, n_steps) if treatment == "class_matched" else None
    return taken.shuffled(seed, groups)


def policy_of(treatment: str, profile: LayerProfile, seed: int) -> Policy:
    """The policy of a treatment that chooses states by their norm."""
    layers = profile.chosen_layers
    tau = FixedThreshold.of(profile)
    match treatment:
        case "plain":
            return Plain(tuple(layers))
        case "rotation":
            return Rotation(tau, seed)
        case "direction_only":
            medians = {layer: quantile(profile, layer, 0.5) for layer in layers}
            return DirectionOnly(tau, medians)
        case "low_norm":
            return LowNormSuppression(
                {layer: quantile(profile, layer, share_above_tau(profile, layer)) for layer in layers}
            )
        case "top10":
            return Suppression(FixedThreshold({layer: quantile(profile, layer, 0.9) for layer in layers}))
        case "bottom10":
            return LowNormSuppression({layer: quantile(profile, layer, 0.1) for layer in layers})
        case _:
            return Suppression(tau, FACTOR[treatment])


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
