"""From draws to a decision: the weakest form decides, the strongest control is named, what is missing is listed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.claims.margin import NO_EFFECT, Form, decide_by_margin
from normprobe.stats.bootstrap import REPLICATES


def around(value: float, spread: float = 0.01, seed: int = 0) -> np.ndarray:
    """Draws of a statistic: its value on the sample, then its resamples."""
    noise = np.random.default_rng(seed).normal(0.0, spread, REPLICATES)
    return np.r_[value, value + noise]


def test_the_weakest_form_decides_and_names_its_strongest_control():
    forms = {
        "plain": Form(around(0.9), {"twin": around(0.1, seed=1), "random": around(0.2, seed=2)}),
        "matched": Form(around(0.5), {"twin": around(0.45, seed=1), "random": around(0.3, seed=2)}),
    }
    decision = decide_by_margin(forms, null=0.0, smallest_effect=0.2)
    assert decision.verdict == "not supported"
    assert (decision.form, decision.strongest) == ("matched", "twin")
    assert decision.margin == pytest.approx(0.05)
    assert decision.interval[0] < 0.05 < decision.interval[1]
    assert decision.p == 1.0


def test_a_control_below_the_value_of_no_effect_does_not_help():
    decision = decide_by_margin(
        {"": Form(around(0.3), {"twin": around(-0.5, seed=1)})}, null=0.1, smallest_effect=0.1
    )
    assert decision.verdict == "supported"
    assert decision.strongest == NO_EFFECT
    assert decision.margin == pytest.approx(0.2)


def test_without_a_control_or_an_estimate_there_is_no_margin_and_the_missing_are_listed():
    forms = {
        "plain": Form(around(0.9), {"twin": None, "random": around(0.2)}),
        "matched": Form(None, {"twin": around(0.1), "random": None}),
    }
    decision = decide_by_margin(forms, null=0.0, smallest_effect=0.1)
    assert decision.verdict == "inconclusive"
    assert decision.missing == (("plain", "twin"), ("matched", "the estimate"), ("matched", "random"))
    assert np.isnan([decision.margin, *decision.interval, decision.p]).all()
    assert decision.strongest == ""


def test_the_strongest_control_is_found_anew_in_every_draw():
    """Two controls that take turns: the margin is never that of one of them alone."""
    turns = np.r_[True, np.arange(REPLICATES) % 2 == 0]
    controls = {"even": np.where(turns, 0.5, 0.0), "odd": np.where(turns, 0.0, 0.5)}
    decision = decide_by_margin({"": Form(np.ones(REPLICATES + 1), controls)}, null=0.0, smallest_effect=0.1)
    assert (decision.margin, decision.interval) == (0.5, (0.5, 0.5))


def test_a_draw_without_a_value_counts_against_the_claim():
    holed = around(1.0)
    holed[5] = np.nan
    decision = decide_by_margin({"": Form(holed, {})}, null=0.0, smallest_effect=0.1)
    assert decision.verdict == "inconclusive"
    assert decision.p == pytest.approx(2 / (REPLICATES + 1))


@given(st.floats(-1, 1), st.floats(0.001, 1), st.floats(-1, 1), st.integers(0, 9))
def test_p_is_a_share_of_resamples_and_agrees_with_the_verdict(value, spread, smallest, seed):
    decision = decide_by_margin(
        {"": Form(around(value, spread, seed), {})}, null=-9.0, smallest_effect=smallest + 9
    )
    assert 1 / (REPLICATES + 1) <= decision.p <= 1
    if decision.verdict == "supported":
        assert decision.p < 0.05
    if decision.verdict == "not supported":
        assert decision.p > 0.95
