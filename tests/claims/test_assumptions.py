"""A1-A4 are found where they hold, and each is found where it alone is broken."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bound_fixture import GOOD, LAYERS, USUAL, Reader, write_bound_run

from normprobe.claims import assumptions
from normprobe.claims.evidence import Evidence
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.runs.tables import Tables
from normprobe.theory.synthetic import Planted

BREAKS = {
    "A1": replace(GOOD, mean_abs_cos=0.2),
    "A2": replace(GOOD, r2=0.94),
    "A3": replace(GOOD, planted=Planted(delta=0.11)),
    "A4": replace(GOOD, overlap=0.04),
}


def judge(path: Path, readers: dict[str, Reader], **options):
    tables = Tables(write_bound_run(path / "run", readers, **options))
    return assumptions.CLAIM.judge(tables, Resampling(np.random.default_rng(0)), 0)


def control(evidence: Evidence, name: str):
    return next(control for control in evidence.controls if control.name == name)


def test_assumptions_that_hold_are_supported(tmp_path):
    evidence, _ = judge(tmp_path, USUAL)
    assert evidence.verdict == "supported"
    assert evidence.estimate == 1.0
    assert (evidence.n, evidence.n_unit) == (48, "problems")  # the selection split is not looked at
    assert control(evidence, "random dictionary").estimate == 0.0
    json.dumps(evidence.to_dict(), allow_nan=False)


@pytest.mark.parametrize("broken", BREAKS)
def test_one_broken_assumption_is_enough_and_is_named(broken, tmp_path):
    evidence, series = judge(tmp_path, USUAL | {"model": BREAKS[broken]})
    assert evidence.verdict == "not supported"
    judged = series[series["decides"] & (series["reader"] == "model")].groupby("assumption")["passes"].all()
    assert judged.to_dict() == {name: name != broken for name in ("A1", "A2", "A3", "A4")}
    assert f"{broken} 0%" in evidence.note


def test_what_a_random_dictionary_satisfies_too_is_no_finding(tmp_path):
    evidence, _ = judge(tmp_path, USUAL | {"random": GOOD})
    assert evidence.estimate == 1.0
    assert evidence.verdict == "not supported"


def test_a1_at_the_level_of_random_directions_is_said_to_say_nothing(tmp_path):
    evidence, series = judge(tmp_path, USUAL)
    assert "says nothing about training" in evidence.note
    plain = series[(series["quantity"] == "mean |cos|") & (series["reader"] == "model")]
    assert not plain["passes"].any()  # the paper's 0.02, out of reach at this width
    assert not plain["decides"].any()


def test_without_the_random_dictionary_it_stays_open(tmp_path):
    evidence, _ = judge(tmp_path, {"model": GOOD})
    assert evidence.verdict == "inconclusive"


def test_a_layer_without_reasoning_features_counts_as_failing(tmp_path):
    evidence, _ = judge(tmp_path, USUAL | {"model": replace(GOOD, empty=1)})
    assert evidence.estimate == pytest.approx(1 - 1 / LAYERS)
    assert "which count as failing: 1." in evidence.note


def test_a_quantity_near_its_threshold_leaves_it_open(tmp_path):
    evidence, series = judge(tmp_path, USUAL | {"model": replace(GOOD, overlap=0.0285)})
    assert evidence.verdict == "inconclusive"
    assert evidence.interval[0] < 1.0 == evidence.interval[1]
    rows = series[(series["quantity"] == "overlap of active features") & (series["reader"] == "model")]
    assert ((rows["low"] < rows["value"]) & (rows["value"] < rows["high"])).all()


def test_too_few_problems_are_not_judged(tmp_path):
    with pytest.raises(NotMeasurable, match="at least 10 measured problems"):
        judge(tmp_path, USUAL, n_problems=8)


def test_the_panel_draws_every_layer_of_model_and_control(tmp_path):
    from matplotlib.figure import Figure

    evidence, series = judge(tmp_path, USUAL | {"model": BREAKS["A3"]})
    axes = Figure().add_subplot()
    assumptions.CLAIM.panel(axes, series, evidence)
    drawn = sum(len(np.asarray(line.get_xdata())) for line in axes.get_lines())
    assert drawn == 4 * 2 * LAYERS
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert sum(label.startswith("random") for label in labels) == 4


def test_problems_without_an_active_feature_pass_nothing_on_its_behalf(tmp_path):
    """Nothing separates or overlaps there: their zeros would carry a layer that fails on all other problems."""
    path = write_bound_run(tmp_path / "run", USUAL | {"model": BREAKS["A4"]})
    silent = [f"p{i:03d}" for i in range(60) if i % 5 and i % 2]
    sums = Tables(path).sums
    sums.loc[(sums["reader"] == "model") & sums["problem_id"].isin(silent), "z_sum"] = 0.0
    sums.to_parquet(path / "reductions" / "sums.parquet")
    evidence, series = assumptions.CLAIM.judge(Tables(path), Resampling(np.random.default_rng(0)), 0)
    overlap = series[(series["quantity"] == "overlap of active features") & (series["reader"] == "model")]
    assert overlap["value"].between(0.035, 0.045).all()
    assert evidence.verdict == "not supported"


def test_a_random_dictionary_with_fewer_features_leaves_it_open(tmp_path):
    evidence, _ = judge(tmp_path, USUAL | {"random": replace(USUAL["random"], empty=2)})
    assert evidence.verdict == "inconclusive"
    assert evidence.reason.startswith("Random dictionary cannot be computed: in 2 of 5 layers fewer")
