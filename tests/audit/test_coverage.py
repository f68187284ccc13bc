"""Nested resampling: what it draws, and that it finds the coverage and the power of an interval that is known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from normprobe.audit.coverage import DRAWS, Nested, coverage
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, decide_by_margin
from normprobe.claims.measure.resampling import Resampling

SMALLEST = 0.1


def judging(values: np.ndarray, missing: bool = False) -> Callable[[Resampling], Evidence]:
    """A claim about the mean of some numbers, one per problem."""

    def evaluate(resample: Resampling) -> Evidence:
        weights = resample(len(values))
        draws = weights @ values / weights.sum(axis=1)
        controls = {"lost": None} if missing else {}
        decision = decide_by_margin({"": Form(draws, controls)}, null=0.0, smallest_effect=SMALLEST)
        return Evidence(
            claim="mean", version=1, statement="", verdict=decision.verdict, reason="", rule="", form="",
            estimate=float(draws[0]), unit="", interval=(0.0, 1.0), n=len(values),
            n_unit="problems", controls=(), decision=decision, seed=0, note="",
        )  # fmt: skip

    return evaluate


def test_a_sample_and_its_resamples_have_as_many_problems_as_the_run() -> None:
    nested = Nested(np.random.default_rng(0), np.random.default_rng(1), samples=3)
    weights = nested(40)
    assert weights.shape == (1 + 3 * (1 + DRAWS), 40)
    assert (weights.sum(axis=1) == 40).all()
    assert (weights[0] == 1).all()
    sample, again = weights[1], weights[2 : 1 + 1 + DRAWS]
    assert (again[:, sample == 0] == 0).all(), "a resample holds only what its sample holds"
    assert again.mean(axis=0) == pytest.approx(sample, abs=0.6)


def test_intervals_of_a_plain_mean_cover_and_the_power_is_the_normal_theorys() -> None:
    values = np.random.default_rng(5).normal(1.0, 1.0, size=400)
    found = coverage("mean", judging(values), seed=0, samples=1000)
    assert found is not None
    assert found.samples == 1000
    assert 0.93 <= found.covered <= 0.97
    error = values.std() / np.sqrt(len(values))
    expected = SMALLEST + (norm.ppf(0.975) + norm.ppf(0.9)) * error
    assert found.power_margin == pytest.approx(expected, rel=0.06)


def test_a_margin_that_never_varies_is_called_constant_and_a_missing_control_gives_nothing() -> None:
    constant = coverage("mean", judging(np.full(30, 0.5)), seed=0, samples=25)
    assert constant is not None
    assert constant.constant
    assert coverage("mean", judging(np.ones(30), missing=True), seed=0, samples=25) is None
