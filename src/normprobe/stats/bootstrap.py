"""Cluster bootstrap over problems.

A resample of n problems is a vector of n counts, so a statistic written as a function of a *weights matrix*
[replicate, problem] is evaluated for all resamples at once. Most statistics are functions of weighted means of
per-problem numbers, which is one matrix product: `weighted_means`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from normprobe.stats.estimate import Estimate

REPLICATES = 2000
CONFIDENCE = 0.95


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
    draws: Float[np.ndarray, " replicate *rest"], confidence: float = CONFIDENCE
) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
    """Low and high ends along the first axis (for curves and bands). NaN where any draw is not finite."""
    tail = (1 - confidence) / 2
    finite = np.where(np.isfinite(draws), draws, np.nan)
    low, high = np.quantile(finite, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def bca_interval(
    value: float,
    draws: Float[np.ndarray, " replicate"],
    jackknife: Float[np.ndarray, " n"],
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval (Efron 1987) from the draws and the n leave-one-out values.

    (NaN, NaN) if anything is not finite: an estimator that breaks on a resample has no honest interval.
    """
    if not (np.isfinite(value) and np.isfinite(draws).all() and np.isfinite(jackknife).all()):
        return float("nan"), float("nan")
    # Draws equal to the value count half, so a discrete or constant statistic gets no spurious bias.
    below = (draws < value).mean() + (draws == value).mean() / 2
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    deviation = jackknife.mean() - jackknife
    spread = (deviation**2).sum()
    acceleration = (deviation**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    tails = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(draws, ndtr(bias + tails / (1 - acceleration * tails)))
    return float(low), float(high)


def bootstrap(
    n: int,
    statistic: Callable[[Float[np.ndarray, "replicate n"]], Float[np.ndarray, " replicate"]],
    rng: np.random.Generator,
    *,
    unit: str,
    n_unit: str = "problems",
    replicates: int = REPLICATES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Estimate and BCa interval of a statistic of weights over n problems.

    `statistic` maps weights [replicate, n] to values [replicate] and must not depend on the scale of a row. The value
    is the one at equal weights. With fewer than two problems the interval is (NaN, NaN).
    """
    if n == 0:
        return Estimate(float("nan"), (float("nan"), float("nan")), 0, n_unit, unit)
    value = float(statistic(np.ones((1, n)))[0])
    interval = (float("nan"), float("nan"))
    if n > 1:
        draws = statistic(bootstrap_weights(n, replicates, rng))
        interval = bca_interval(value, draws, statistic(1 - np.eye(n)), confidence)
    return Estimate(value, interval, n, n_unit, unit)


def mean_interval(
    values: Float[np.ndarray, " n"], rng: np.random.Generator, *, unit: str, n_unit: str = "problems"
) -> Estimate:
    """Mean over problems with its BCa interval."""
    return bootstrap(
        len(values), lambda weights: weighted_means(weights, values), rng, unit=unit, n_unit=n_unit
    )
