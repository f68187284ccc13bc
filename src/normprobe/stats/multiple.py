"""Correction for many tests at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Holm's step-down adjusted p-values: below α they control the family-wise error at α."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(adjusted)
    out[order] = np.minimum(adjusted, 1.0)
    return out
