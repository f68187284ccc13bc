"""Cluster bootstrap over problems.

A resample of n problems is a vector of n counts, so a statistic written as a function of a *weights matrix*
[replicate, problem] is evaluated for all resamples at once. Most statistics are functions of weighted means of
per-problem numbers, which is one matrix product: `weighted_means`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

REPLICATES = 2000
TAIL = (1 - 0.95) / 2
"""Share beyond each end of a 95 % interval."""


def bootstrap_weights(n: int, replicates: int, rng: np.random.Generator) -> Float[np.ndarray, "replicate n"]:
    """How often each of n problems is drawn in each resample (n draws with replacement); every row sums to n."""
    return rng.multinomial(n, np.full(n, 1 / n), size=replicates).astype(np.float64)


def weighted_means(
    weights: Float[np.ndarray, "replicate n"], per_cluster: Float[np.ndarray, " n *rest"]
) -> Float[np.ndarray, " replicate *rest"]:
    """Means over the problems in each resample; float64. Use numerator and denominator columns for ratios."""
    flat = np.asarray(per_cluster, dtype=np.float64).reshape(len(per_cluster), -1)
    means = weights @ flat / weights.sum(axis=1, keepdims=True)
    return means.reshape(len(weights), *per_cluster.shape[1:])


def percentile_interval(
    draws: Float[np.ndarray, " replicate *rest"],
) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
    """Low and high ends along the first axis (for curves and bands). NaN where any draw is not finite."""
    low, high = np.quantile(np.where(np.isfinite(draws), draws, np.nan), [TAIL, 1 - TAIL], axis=0)
    return np.asarray(low), np.asarray(high)


def mean_interval(values: Float[np.ndarray, " n"], rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean over problems, bias-corrected and accelerated (BCa, Efron 1987).

    (NaN, NaN) for fewer than two values, and where one is not finite.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    all_of_them, draws, jackknife = (
        weighted_means(weights, values)
        for weights in (np.ones((1, n)), bootstrap_weights(n, REPLICATES, rng), 1 - np.eye(n))
    )
    value = float(all_of_them[0])
    # Draws equal to the value count half, so a discrete or constant statistic gets no spurious bias.
    below = (draws < value).mean() + (draws == value).mean() / 2
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    deviation = jackknife.mean() - jackknife
    spread = (deviation**2).sum()
    acceleration = (deviation**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    tails = bias + ndtri(np.array([TAIL, 1 - TAIL]))
    low, high = np.quantile(draws, ndtr(bias + tails / (1 - acceleration * tails)))
    return float(low), float(high)
