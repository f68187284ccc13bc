"""AUROC over tokens with the problem as the unit, plain or within strata (for instance the same token identity)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata


def weighted_auroc(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
    stratum: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "replicate c"],
) -> Float[np.ndarray, " replicate"]:
    """AUROC in each weighted sample of clusters (0…C−1), ties counting half, from the pairs of one stratum (any
    non-negative integers); NaN where a sample holds no pair."""
    # wins[a, b]: pairs (positive of cluster a, negative of cluster b) where the positive scores higher; pairs: all.
    # With counts w the AUROC is wᵀ·wins·w / wᵀ·pairs·w, so observations are sorted only once.
    n_clusters = int(cluster.max()) + 1
    # One integer key orders by stratum first, then by score; equal scores share a key.
    span = len(scores) + 1
    floor = stratum.astype(np.int64) * span
    key = floor + rankdata(scores, method="dense").astype(np.int64)
    order = np.argsort(key[positive], kind="stable")
    p_key, p_floor, p_cluster = key[positive][order], floor[positive][order], cluster[positive][order]
    wins, pairs = np.zeros((n_clusters, n_clusters)), np.zeros((n_clusters, n_clusters))
    for column in range(n_clusters):
        negatives = np.sort(key[~positive & (cluster == column)])
        before = np.searchsorted(negatives, p_floor)
        beaten = np.searchsorted(negatives, p_key, "left") + np.searchsorted(negatives, p_key, "right")
        total = np.searchsorted(negatives, p_floor + span) - before
        wins[:, column] = np.bincount(p_cluster, beaten / 2 - before, minlength=n_clusters)
        pairs[:, column] = np.bincount(p_cluster, total, minlength=n_clusters)
    won = ((weights @ wins) * weights).sum(axis=1)
    possible = ((weights @ pairs) * weights).sum(axis=1)
    return np.where(possible > 0, won / np.where(possible > 0, possible, 1), np.nan)
