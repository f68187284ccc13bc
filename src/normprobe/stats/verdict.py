"""The one rule that turns an interval into a verdict (DESIGN.md, "Claims")."""

from __future__ import annotations

import math

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
INCONCLUSIVE = "inconclusive"
VACUOUS = "vacuous"


def decide(interval: tuple[float, float] | None, smallest_effect: float) -> str:
    """Verdict on the interval of (model − strongest control).

    supported if it lies above the smallest effect of interest, not supported if it lies below, else inconclusive.
    `None` stands for a control that could not be computed: inconclusive, as is an interval that is not finite.
    """
    if interval is None or not all(math.isfinite(end) for end in interval):
        return INCONCLUSIVE
    low, high = interval
    if low > smallest_effect:
        return SUPPORTED
    if high < smallest_effect:
        return NOT_SUPPORTED
    return INCONCLUSIVE
