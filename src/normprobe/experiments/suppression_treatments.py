"""The treatments of the suppression experiment: which states each changes, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

    about: str
    factor: float
    policy: Callable[[LayerProfile, int], Policy] | None = None
    doses_of: str | None = None
    by_class: bool = False


def _above_tau(factor: float) -> Callable[[LayerProfile, int], Policy]:
    return lambda profile, _seed: Suppression(FixedThreshold.of(profile), factor)


def _rotation(profile: LayerProfile, seed: int) -> Policy:
    return Rotation(FixedThreshold.of(profile), seed)


def _direction_only(profile: LayerProfile, _seed: int) -> Policy:
    return DirectionOnly(FixedThreshold.of(profile), _quantiles(profile, 0.5))


def _low_norm(profile: LayerProfile, _seed: int) -> Policy:
    layers = profile.chosen_layers
    return LowNormSuppression(
        {layer: quantile(profile, layer, share_above_tau(profile, layer)) for layer in layers}
    )


def _at_factor(factor: float) -> dict[str, Treatment]:
    """The dose–response: high_norm and random_same_factor at a milder factor than the paper's 0.1."""
    return {
        f"high_norm_{factor}": Treatment(f"high_norm, × {factor}", factor, _above_tau(factor)),
        f"random_same_factor_{factor}": Treatment(
            f"random_same_factor, × {factor}", factor, doses_of=f"high_norm_{factor}"
        ),
    }


TREATMENTS: dict[str, Treatment] = {
    "plain": Treatment("no state is changed", 1.0, lambda profile, _: Plain(tuple(profile.chosen_layers))),
    "high_norm": Treatment(
        "norms above τ, × 0.1: the paper's experiment", PAPER_SCALE, _above_tau(PAPER_SCALE)
    ),
    "random_matched": Treatment(
        "as many random tokens as high_norm, each shortened by the ‖Δh‖ of one of those",
        math.nan,
        doses_of="high_norm",
    ),
    "random_same_factor": Treatment("the tokens of random_matched, × 0.1", PAPER_SCALE, doses_of="high_norm"),
    "class_matched": Treatment(
        "as random_matched, among tokens of the same class and place",
        math.nan,
        doses_of="high_norm",
        by_class=True,
    ),
    "rotation": Treatment(
        "norms above τ, turned by as much ‖Δh‖ at the same norm; more states than high_norm changes, since a turned "
        "state is still long in the next layer",
        1.0,
        _rotation,
    ),
    "direction_only": Treatment("norms above τ, set to the layer's median", math.nan, _direction_only),
    "low_norm": Treatment("as large a share as high_norm from the other end, × 0.1", PAPER_SCALE, _low_norm),
    "top10": Treatment(
        "norms above the 90th percentile, × 0.1, for models in which τ marks few states",
        PAPER_SCALE,
        lambda profile, _: Suppression(FixedThreshold(_quantiles(profile, 0.9))),
    ),
    "random10": Treatment("to top10 what random_matched is to high_norm", math.nan, doses_of="top10"),
    "random10_same_factor": Treatment(
        "to top10 what random_same_factor is to high_norm", PAPER_SCALE, doses_of="top10"
    ),
    "bottom10": Treatment(
        "norms below the 10th percentile, × 0.1",
        PAPER_SCALE,
        lambda profile, _: LowNormSuppression(_quantiles(profile, 0.1)),
    ),
    **_at_factor(0.75),
    **_at_factor(0.5),
    **_at_factor(0.25),
}
"""By name, each after the treatment whose doses it needs. Thresholds and medians are those of the split `select`: the
measured problems have no part in them."""


def in_order(treatments: Sequence[str]) -> list[str]:
    """The treatments so that each comes after the one whose doses it needs.

    Raises NormprobeError for an unknown or missing treatment.
    """
    if unknown := sorted(set(treatments) - set(TREATMENTS)):
        raise NormprobeError(
            f"expected treatments among {', '.join(TREATMENTS)}, got {', '.join(unknown)}; correct the list"
        )
    sources = {source for name in treatments if (source := TREATMENTS[name].doses_of) is not None}
    if missing := sorted(sources - set(treatments)):
        raise NormprobeError(
            f"expected {', '.join(missing)} among the treatments, since a random treatment copies it, got none; add it"
        )
    return [name for name in TREATMENTS if name in treatments]


def moved(
    treatment: Treatment, source: Doses, tokens: pd.DataFrame, problem_ids: Sequence[str], seed: int
) -> Doses:
    """The doses of a random treatment: those of its source on other tokens of each request (`problem_ids`).

    tokens: traces/tokens.parquet, which tells the classes of tokens.
    """
    n_steps = source.delta.shape[1]
    return source.shuffled(seed, token_groups(tokens, problem_ids, n_steps) if treatment.by_class else None)


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
