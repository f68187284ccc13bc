"""Division of non-negative quantities where nothing over nothing is nothing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real


def ratio(
    numerator: Real[np.ndarray, "*input"], denominator: Real[np.ndarray, "*input"]
) -> Float[np.ndarray, "*input"]:
    """numerator / denominator in float64; 0/0 = 0, because an assumption on a part that is absent asks for nothing,
    and x/0 = ∞, because no finite constant covers it."""
    numerator = np.asarray(numerator, dtype=np.float64)
    denominator = np.asarray(denominator, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((numerator == 0) & (denominator == 0), 0.0, numerator / denominator)
