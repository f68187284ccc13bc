"""Permutation tests that respect the problem: signs within pairs, labels within problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.stats import permutation_test

REPLICATES = 9999


@dataclass(frozen=True)
class Permutation:
    """value: the statistic as observed; null [replicate]: the same under permutation; p: one-sided, large is extreme
    (the observed order counted as one of the permutations, so p is never 0)."""

    value: float
    null: Float[np.ndarray, " replicate"]
    p: float


def paired_permutation(
    differences: Float[np.ndarray, " n"], rng: np.random.Generator, replicates: int = REPLICATES
) -> Permutation:
    """Sign-flip test that the mean of n paired differences is not above 0; exact where 2ⁿ ≤ replicates."""
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
    return Permutation(float(result.statistic), np.asarray(result.null_distribution), float(result.pvalue))


def permute_within(
    labels: Shaped[np.ndarray, " n"], cluster: Int[np.ndarray, " n"], rng: np.random.Generator
) -> Shaped[np.ndarray, " n"]:
    """The labels in random order within each cluster: every cluster keeps its own labels."""
    plain = np.lexsort((np.arange(len(labels)), cluster))
    shuffled = np.lexsort((rng.random(len(labels)), cluster))
    permuted = np.empty_like(labels)
    permuted[plain] = labels[shuffled]
    return permuted


def within_cluster_permutation(
    labels: Shaped[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
    statistic: Callable[[Shaped[np.ndarray, " n"]], float],
    rng: np.random.Generator,
    replicates: int = 999,
) -> Permutation:
    """Test of a statistic of the labels against labels exchanged within clusters only."""
    value = float(statistic(labels))
    null = np.array([float(statistic(permute_within(labels, cluster, rng))) for _ in range(replicates)])
    return Permutation(value, null, float((1 + (null >= value).sum()) / (1 + replicates)))
