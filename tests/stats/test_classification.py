import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.stats.bootstrap import bootstrap_weights
from normprobe.stats.classification import weighted_auroc


def by_enumeration(scores: np.ndarray, positive: np.ndarray, stratum: np.ndarray) -> float:
    won = total = 0.0
    for i in np.flatnonzero(positive):
        rivals = scores[~positive & (stratum == stratum[i])]
        won += (scores[i] > rivals).sum() + (scores[i] == rivals).sum() / 2
        total += len(rivals)
    return won / total if total else float("nan")


@given(st.integers(0, 10_000))
def test_the_rank_form_is_the_definition_with_ties_strata_and_resamples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    scores, positive = rng.integers(0, 5, n).astype(float), rng.random(n) < 0.4
    cluster, stratum = np.r_[np.arange(6), rng.integers(0, 6, n - 6)], rng.integers(0, 3, n)
    weights = bootstrap_weights(6, 4, rng)
    fast = weighted_auroc(scores, positive, cluster, stratum, weights)
    for row, value in zip(weights.astype(int), fast, strict=True):
        take = np.repeat(np.arange(n), row[cluster])
        expected = by_enumeration(scores[take], positive[take], stratum[take])
        np.testing.assert_allclose(value, expected, atol=1e-12)


def auroc(
    scores: np.ndarray, positive: np.ndarray, cluster: np.ndarray, stratum: np.ndarray | None = None
) -> np.ndarray:
    """The AUROC of the sample, then of 200 resamples of its clusters."""
    weights = bootstrap_weights(int(cluster.max()) + 1, 200, np.random.default_rng(1))
    weights = np.vstack([np.ones_like(weights[:1]), weights])
    stratum = np.zeros(len(scores), dtype=np.int64) if stratum is None else stratum
    return weighted_auroc(scores, positive, cluster, stratum, weights)


def test_a_monotone_change_of_the_score_changes_nothing_and_a_reversal_mirrors() -> None:
    rng = np.random.default_rng(0)
    scores, positive, cluster = rng.normal(size=300), rng.random(300) < 0.3, rng.integers(0, 10, 300)
    cluster[:10] = np.arange(10)
    plain = auroc(scores, positive, cluster)
    np.testing.assert_array_equal(auroc(np.exp(scores), positive, cluster), plain)
    np.testing.assert_allclose(auroc(-scores, positive, cluster), 1 - plain)


def test_a_score_that_only_knows_the_token_identity_is_worth_nothing_within_identities() -> None:
    rng = np.random.default_rng(0)
    identity, cluster = rng.integers(0, 5, 2000), rng.integers(0, 40, 2000)
    positive = rng.random(2000) < identity / 5
    scores = identity + 1e-3 * rng.normal(size=2000)
    assert auroc(scores, positive, cluster)[0] > 0.7
    low, high = np.quantile(auroc(scores, positive, cluster, identity), [0.025, 0.975])
    assert low < 0.5 < high


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    problem = np.repeat(np.arange(20), 20)
    positive = np.tile(np.arange(20) < 10, 20)
    scores = positive * 1.0 + positive * rng.normal(size=20)[problem] + 0.1 * rng.normal(size=400)
    by_problem, by_token = auroc(scores, positive, problem), auroc(scores, positive, np.arange(400))
    assert by_problem[0] == pytest.approx(by_token[0])
    assert by_problem.std() > by_token.std()


def test_without_negatives_there_is_no_auroc() -> None:
    assert np.isnan(auroc(np.arange(4.0), np.ones(4, dtype=bool), np.arange(4))).all()
