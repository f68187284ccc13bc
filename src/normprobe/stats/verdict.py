"""The one rule that turns an interval into a verdict (DESIGN.md, "Claims")."""

from __future__ import annotations

import math

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
