"""The bound is supported where it holds on other problems, says something, and its controls do neither."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bound_fixture import GOOD, LAYERS, NOISE, USUAL, Reader, write_bound_run
from hypothesis import given
from hypothesis import strategies as st

from normprobe.claims import two_sided_bound
from normprobe.claims.measure.bound_inputs import read_bound_inputs, shared_problems
from normprobe.claims.measure.held_out_bound import fix
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.runs.tables import Tables
from normprobe.theory.bound import averaged_slack, signed_bound, slack


def judge(path: Path, readers: dict[str, Reader], **options):
    tables = Tables(write_bound_run(path / "run", readers, **options))
    return two_sided_bound.CLAIM.judge(tables, Resampling(np.random.default_rng(0)), 0)


def of_model(series, form="signed"):
    return series[(series["reader"] == "model") & (series["form"] == form)]


def test_a_bound_that_holds_and_says_something_is_supported(tmp_path):
    evidence, series = judge(tmp_path, USUAL)
    assert evidence.verdict == "supported"
    assert evidence.estimate > 0.95
    assert (evidence.n, evidence.n_unit) == (24, "held-out problems")
    inputs = of_model(series)
    assert len(inputs) == 24 * LAYERS
    assert (inputs["lower"] <= inputs["s"]).all()
    assert (inputs["s"] <= inputs["upper"]).all()
    json.dumps(evidence.to_dict(), allow_nan=False)


def test_a_bound_that_says_nothing_is_vacuous_though_it_always_holds(tmp_path):
    evidence, series = judge(tmp_path, USUAL | {"model": NOISE})
    assert evidence.verdict == "vacuous"
    inputs = of_model(series)
    assert inputs["holds"].mean() > 0.95
    assert inputs.loc[inputs["vacuous"], "why_vacuous"].str.contains("slack").all()
    assert "are vacuous" in evidence.reason


def test_a_bound_that_holds_as_well_on_the_untrained_twin_is_no_finding(tmp_path):
    evidence, _ = judge(tmp_path, USUAL | {"untrained": GOOD})
    assert evidence.estimate > 0.95
    assert evidence.verdict == "not supported"


def test_a_dictionary_more_coherent_than_it_claims_is_caught_on_other_problems(tmp_path):
    evidence, series = judge(tmp_path, USUAL | {"model": replace(GOOD, c_star=2.0)})
    assert evidence.verdict == "not supported"
    violated = of_model(series)[~of_model(series)["holds"]]
    assert len(violated) > 0
    assert (violated["s"] > violated["upper"]).all()


@pytest.mark.parametrize("missing", ["random", "untrained"])
def test_a_missing_control_leaves_it_open(missing, tmp_path):
    evidence, _ = judge(tmp_path, {name: reader for name, reader in USUAL.items() if name != missing})
    assert evidence.verdict == "inconclusive"


def test_a_control_with_fewer_features_than_the_model_leaves_it_open(tmp_path):
    evidence, _ = judge(tmp_path, USUAL | {"untrained": replace(NOISE, empty=1)})
    assert evidence.verdict == "inconclusive"
    assert evidence.decision.missing == (("signed", "untrained twin"),)
    assert "(0 of 4 in layer 4)" in evidence.reason


def test_inputs_in_which_no_feature_of_a_control_is_active_do_not_speak_for_it(tmp_path):
    """A twin as good as the model, but silent in three layers of five: its share is that of the other two."""
    path = write_bound_run(tmp_path / "run", USUAL | {"untrained": replace(GOOD, empty=3)})
    table = Tables(path).dictionary
    table["n_selected"] = 4  # as many were chosen, and on the measured problems they stay silent
    table.to_parquet(path / "reductions" / "dictionary.parquet")
    evidence, _ = two_sided_bound.CLAIM.judge(Tables(path), Resampling(np.random.default_rng(0)), 0)
    (twin,) = (control for control in evidence.own_controls if control.name == "untrained twin")
    assert twin.estimate > 0.9
    assert evidence.verdict == "not supported"


def test_layers_without_reasoning_features_are_vacuous(tmp_path):
    evidence, series = judge(tmp_path, USUAL | {"model": replace(GOOD, empty=3)})
    inputs = of_model(series)
    assert inputs.loc[inputs["layer"] >= LAYERS - 3, "why_vacuous"].eq("no active reasoning feature").all()
    assert evidence.verdict == "vacuous"


def test_the_halves_are_disjoint_and_the_controls_use_the_same_one(tmp_path):
    _, series = judge(tmp_path, USUAL)
    problems = series.groupby("reader")["problem_id"].unique()
    assert all(set(problems["model"]) == set(others) for others in problems)
    assert len(problems["model"]) == 24  # of 48 measured


def test_synthetic_pairs_break_the_bound_without_slack_only_when_an_assumption_is_broken():
    exact, *broken = two_sided_bound.broken_assumptions(np.random.default_rng(0))
    assert exact.estimate == 1.0
    assert len(broken) == 5
    for control in broken:
        low, high = control.interval
        assert low < control.estimate < high < 1.0


@pytest.mark.parametrize("reader", [GOOD, NOISE], ids=["good", "noise"])
def test_with_its_own_constants_no_input_can_violate_the_bound(reader, tmp_path):
    """With the parameters of the input itself the inequality is algebra: a violation would be a bug."""
    tables = Tables(write_bound_run(tmp_path / "run", {"model": reader}))
    inputs = read_bound_inputs(tables, "model", shared_problems(tables, ["model"]))
    c = np.full(inputs.s.shape, tables.dictionary["c_star_selected"].iloc[0])
    gap, omega, rho = inputs.lengths.gap, slack(inputs.constants, inputs.lengths), inputs.constants.rho
    assert signed_bound(gap, omega, rho, c).holds(inputs.s).all()
    room = averaged_slack(omega, inputs.spread_think, inputs.spread_no_think)
    assert (
        signed_bound(gap + inputs.spread_think - inputs.spread_no_think, room, rho, c).holds(inputs.s).all()
    )


@given(st.integers(1, 200), st.integers(0, 1000))
def test_a_fixed_constant_leaves_at_most_one_problem_in_twenty_above_it(n, seed):
    values = np.random.default_rng(seed).normal(size=(n, 2))
    above = (values > fix(values)).sum(axis=0)
    assert (above <= n / 20).all()
    assert (above == 0).all() or n >= 19


def test_too_few_problems_are_not_judged(tmp_path):
    with pytest.raises(NotMeasurable, match="at least 20 measured problems"):
        judge(tmp_path, USUAL, n_problems=20)


@pytest.mark.parametrize(
    "reader", [GOOD, NOISE, replace(GOOD, c_star=0.0)], ids=["good", "noise", "no upper half"]
)
def test_the_panel_shows_every_input_once(reader, tmp_path):
    from matplotlib.figure import Figure

    evidence, series = judge(tmp_path, USUAL | {"model": reader})
    axes = Figure().add_subplot()
    two_sided_bound.CLAIM.panel(axes, series, evidence)
    points = [line for line in axes.get_lines() if line.get_linestyle() == "None"]
    assert sum(len(np.asarray(line.get_xdata())) for line in points) == len(of_model(series))
    assert axes.get_legend() is not None
