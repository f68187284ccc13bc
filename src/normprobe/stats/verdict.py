"""The one rule that turns an interval into a verdict (DESIGN.md, "Claims"), and the correction for many verdicts."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
INCONCLUSIVE = "inconclusive"
VACUOUS = "vacuous"


def decide(interval: tuple[float, float], smallest_effect: float) -> str:
    """Verdict on the interval of (model − strongest control).

    supported if it lies above the smallest effect of interest, not supported if it lies below, else inconclusive, as is
    an interval that is not finite.
    """
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return INCONCLUSIVE
    if low > smallest_effect:
        return SUPPORTED
    return NOT_SUPPORTED if high < smallest_effect else INCONCLUSIVE


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Holm's step-down adjusted p-values: below α they control the family-wise error at α."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(adjusted)
    out[order] = np.minimum(adjusted, 1.0)
    return out
