"""Total variation of two samples, and what chance alone gives."""

import itertools
import math

import numpy as np
import pytest

from normprobe.stats.total_variation import chance_variation, total_variation


def counts(labels, n: int = 3) -> np.ndarray:
    return np.bincount(np.asarray(labels, dtype=int), minlength=n)


def test_alike_and_nothing_in_common():
    assert total_variation(counts([0, 0, 1]), counts([0, 1, 0])) == 0.0
    assert total_variation(counts([0, 0]), counts([1, 2, 2])) == 1.0
    assert total_variation(counts([0, 1]), counts([0, 0, 0, 2])) == pytest.approx(0.5)


def test_chance_is_the_mean_over_all_divisions():
    pooled = [0, 0, 0, 1, 1, 2, 0]
    for n in (1, 3, 6):
        reference = []
        for chosen in itertools.combinations(range(len(pooled)), n):
            first = [pooled[i] for i in chosen]
            second = [pooled[i] for i in range(len(pooled)) if i not in chosen]
            reference.append(total_variation(counts(first), counts(second)))
        some, rest = counts(pooled[:n]), counts(pooled[n:])
        assert chance_variation(some, rest) == pytest.approx(np.mean(reference))
        assert chance_variation(rest, some) == pytest.approx(np.mean(reference))


def test_samples_of_one_distribution_exceed_chance_by_nothing_on_average():
    rng = np.random.default_rng(0)
    excess = []
    for _ in range(300):
        some, rest = (counts(rng.integers(3, size=n)) for n in (12, 20))
        excess.append(total_variation(some, rest) - chance_variation(some, rest))
    assert abs(np.mean(excess)) < 3 * np.std(excess) / math.sqrt(len(excess))


def test_an_empty_sample_has_no_distance():
    for function in (total_variation, chance_variation):
        assert math.isnan(function(counts([]), counts([1, 1])))
