"""How far two samples of categories lie apart, and how far chance alone would set them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy.stats import hypergeom


def total_variation(first: Int[np.ndarray, " category"], second: Int[np.ndarray, " category"]) -> float:
    """½ Σ |p − q| of two samples, given as counts by category: 0 (alike) to 1 (nothing in common); NaN if one is
    empty."""
    n, m = int(first.sum()), int(second.sum())
    return float(np.abs(first / n - second / m).sum() / 2) if n and m else float("nan")


def chance_variation(first: Int[np.ndarray, " category"], second: Int[np.ndarray, " category"]) -> float:
    """The mean of `total_variation` over all ways to divide the pooled observations into samples of these sizes: what
    is to be expected if both come from one distribution. Exact; NaN if a sample is empty."""
    n, m = int(first.sum()), int(second.sum())
    if not (n and m):
        return float("nan")
    # Of a category that comes c times in all, the first sample holds a hypergeometric number.
    held = np.arange(n + 1)
    expected = 0.0
    for both in (first + second).tolist():
        chance = hypergeom.pmf(held, n + m, both, n)
        expected += float((chance * np.abs(held / n - (both - held) / m)).sum()) / 2
    return expected
