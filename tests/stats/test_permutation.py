import numpy as np
import pytest

from normprobe.stats.permutation import paired_permutation, permute_within, within_cluster_permutation


def test_few_pairs_are_enumerated_exactly() -> None:
    result = paired_permutation(np.array([1.0, 2.0, 3.0, 4.0]), np.random.default_rng(0))
    assert result.p == pytest.approx(1 / 16)
    assert len(result.null) == 16


def test_the_sign_flip_test_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    p = np.array([paired_permutation(rng.normal(size=20), rng, 499).p for _ in range(400)])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_labels_stay_within_their_problem() -> None:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 5, 60)
    labels = cluster * 100 + rng.integers(0, 3, 60)
    permuted = permute_within(labels, cluster, rng)
    assert (permuted // 100 == cluster).all()
    assert sorted(permuted) == sorted(labels)
    assert (permuted != labels).any()


def test_a_difference_between_problems_alone_does_not_reject_but_one_within_them_does() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(20), 10)
    labels = rng.integers(0, 2, 200)
    labels[cluster < 10] |= rng.integers(0, 2, 100)
    between = np.where(cluster < 10, 5.0, 0.0) + rng.normal(size=200)
    within = between + 2.0 * labels

    def gap(values: np.ndarray):
        return lambda which: values[which == 1].mean() - values[which == 0].mean()

    assert within_cluster_permutation(labels, cluster, gap(within), rng, 199).p == pytest.approx(1 / 200)
    assert gap(between)(labels) > 0.5
    assert within_cluster_permutation(labels, cluster, gap(between), rng, 199).p > 0.05
