"""Rank correlations: plain, partial, and re-ranked in every bootstrap resample.

Ranks are mid-ranks; a constant sample has no correlation and gives NaN.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

# Below this share of a variable's variance nothing is left to correlate: rounding, not signal.
_NOTHING_LEFT = 1e-9
_BLOCK = 2**21


def _from_covariance(covariance: Float[np.ndarray, "*batch v v"]) -> Float[np.ndarray, " *batch"]:
    """Correlation of the first two variables given all the others (Schur complement)."""
    ours, others = covariance[..., :2, :2], covariance[..., 2:, 2:]
    cross = covariance[..., :2, 2:]
    left = ours - cross @ np.linalg.pinv(others, hermitian=True) @ np.swapaxes(cross, -1, -2)
    variance = left[..., [0, 1], [0, 1]]
    alive = (variance > _NOTHING_LEFT * ours[..., [0, 1], [0, 1]]).all(axis=-1)
    scale = np.sqrt(np.where(alive, variance[..., 0] * variance[..., 1], 1.0))
    return np.where(alive, np.clip(left[..., 0, 1] / scale, -1, 1), np.nan)


def spearman(
    x: Float[np.ndarray, "*batch n"],
    y: Float[np.ndarray, "*batch n"],
    *covariates: Float[np.ndarray, "*#batch n"],
) -> Float[np.ndarray, " *batch"]:
    """Spearman's ρ along the last axis, for each leading index (layers, resamples) at once; given covariates, all are
    ranked and these linearly partialled out. With x, y of shape [layer, token] it is the within-layer correlation.

    NaN where the covariates leave nothing of x or of y.
    """
    variables = [x, y, *(np.broadcast_to(covariate, x.shape) for covariate in covariates)]
    ranks = np.stack([rankdata(variable, axis=-1) for variable in variables], axis=-2)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    return _from_covariance(centred @ np.swapaxes(centred, -1, -2))


def _weighted_ranks(x: Float[np.ndarray, " n"], weights: Float[np.ndarray, "replicate n"]) -> np.ndarray:
    """Mid-ranks [replicate, n] of x in samples that hold observation i weights[:, i] times."""
    _, group, size = np.unique(x, return_inverse=True, return_counts=True)
    by_value = weights[:, np.argsort(group, kind="stable")]
    mass = np.add.reduceat(by_value, np.cumsum(size) - size, axis=1)
    return (np.cumsum(mass, axis=1) - mass / 2)[:, group]


def weighted_spearman(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, "replicate n"],
) -> Float[np.ndarray, " replicate"]:
    """Spearman's ρ in each weighted sample, ranks taken anew in each.

    Keeping the ranks of the full sample would be faster and wrong to first order: the ranks are estimates too.
    """
    out = []
    rows = max(1, _BLOCK // max(1, len(x)))
    for start in range(0, len(weights), rows):
        block = weights[start : start + rows]
        ranks = np.stack([_weighted_ranks(variable, block) for variable in (x, y)], axis=1)
        total = (ranks * block[:, None]).sum(axis=-1, keepdims=True)
        centred = ranks - total / block.sum(axis=1)[:, None, None]
        out.append(_from_covariance((centred * block[:, None]) @ np.swapaxes(centred, -1, -2)))
    return np.concatenate(out)
