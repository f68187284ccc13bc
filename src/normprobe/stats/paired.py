"""Two conditions compared on the same problems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri
from scipy.stats import binomtest, permutation_test

from normprobe.stats.bootstrap import TAIL, mean_interval, weighted_means


@dataclass(frozen=True)
class Estimate:
    """A paired difference with its 95 % interval (low, high) and the p-value of its test; NaN where none can be had."""

    value: float
    interval: tuple[float, float]
    p: float


def mcnemar(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> Estimate:
    """Difference of two paired accuracies (first − second), exact two-sided McNemar p.

    Interval: Wald after half an observation is added to each count (Agresti & Min 2005), which keeps its coverage where
    few or no pairs disagree.
    """
    return mcnemar_of(int((first & ~second).sum()), int((~first & second).sum()), len(first))


def mcnemar_of(won: int, lost: int, n: int) -> Estimate:
    """`mcnemar` of n pairs, from the counts of those that only the first and only the second gets right."""
    if n == 0:
        return Estimate(float("nan"), (float("nan"), float("nan")), float("nan"))
    p = binomtest(won, won + lost).pvalue if won + lost else 1.0
    centre = (won - lost) / (n + 2)
    error = np.sqrt((won + lost + 1) - (won - lost) ** 2 / (n + 2)) / (n + 2)
    half = float(-ndtri(TAIL) * error)
    return Estimate((won - lost) / n, (max(-1.0, centre - half), min(1.0, centre + half)), float(p))


def paired_difference(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Estimate:
    """Mean of first − second over problems: BCa interval, one-sided sign-flip p (first is larger)."""
    difference = np.asarray(first, dtype=np.float64) - second
    value = float(weighted_means(np.ones((1, len(difference))), difference)[0])
    return Estimate(value, mean_interval(difference, rng), sign_flip_p(difference, rng))


def sign_flip_p(
    differences: Float[np.ndarray, " n"], rng: np.random.Generator, replicates: int = 9999
) -> float:
    """One-sided p of the sign-flip test that the mean of paired differences is not above 0.

    Exact where 2ⁿ ≤ replicates. The observed signs count as one of the permutations, so p is never 0.
    """
    result = permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        alternative="greater",
        n_resamples=replicates,
        vectorized=True,
        batch=1000,
        rng=rng,
    )
    return float(result.pvalue)
