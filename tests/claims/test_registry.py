"""Judging a whole run: files, schema, what is skipped; and what a damaged run is told."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_fixture import Effects, write_run
from layout_fixture import put

from normprobe.claims.measure.resampling import Resampling
from normprobe.claims.registry import CLAIMS, evaluate_all
from normprobe.errors import NormprobeError
from normprobe.runs.tables import Tables

SCHEMA = {
    "claim": str,
    "statement": str,
    "verdict": str,
    "rule": str,
    "estimate": float,
    "unit": str,
    "interval": list,
    "n": int,
    "n_unit": str,
    "controls": list,
    "decision": dict,
    "seed": int,
    "version": int,
    "reason": str,
    "form": str,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = write_run(tmp_path_factory.mktemp("runs") / "run", Effects(tracking=2.0), roles=False)
    evaluate_all(Tables(path), 3, path / "evidence")
    return path


def test_verdicts_have_the_schema(run):
    verdicts = json.loads((run / "evidence" / "verdicts.json").read_text())
    assert verdicts
    for verdict in verdicts:
        assert {key: type(verdict[key]) for key in SCHEMA} == SCHEMA
        assert verdict.keys() - SCHEMA.keys() == {"note", "allowed"}
        assert verdict["seed"] == 3
        assert len(verdict["interval"]) == 2
        for control in verdict["controls"]:
            assert control.keys() == {"form", "name", "decides", "estimate", "interval", "quantity"}


def test_a_claim_without_its_tables_is_skipped_with_a_reason(run):
    skipped = {entry["claim"]: entry for entry in json.loads((run / "evidence" / "skipped.json").read_text())}
    assert "roles" in skipped["marks_critical_steps"]["reason"]
    judged = {entry["claim"] for entry in json.loads((run / "evidence" / "verdicts.json").read_text())}
    assert judged.isdisjoint(skipped)
    assert judged | skipped.keys() == {claim.name for claim in CLAIMS}


def test_a_claim_with_too_little_is_skipped_with_a_reason(tmp_path):
    path = write_run(tmp_path / "run", n_problems=9)
    assert evaluate_all(Tables(path), 0, path / "evidence") == []
    skipped = json.loads((path / "evidence" / "skipped.json").read_text())
    assert any("at least 10 measured problems" in entry["reason"] for entry in skipped)


def test_every_judged_claim_draws_its_series(run):
    from matplotlib.figure import Figure

    judged = {evidence.claim: evidence for evidence in evaluate_all(Tables(run), 3, run / "evidence")}
    for claim in CLAIMS:
        if claim.name not in judged:
            continue
        series, entry = run / "evidence" / f"{claim.name}.parquet", judged[claim.name]
        figure = Figure()
        axes = figure.subplots()
        claim.panel(axes, pd.read_parquet(series), entry)
        figure.draw_without_rendering()
        labels = axes.get_xlabel() + axes.get_ylabel()
        assert labels
        assert axes.has_data()


def test_a_claim_says_of_every_control_that_decides_what_it_rules_out(tmp_path):
    tables = Tables(write_run(tmp_path / "run"))
    for claim in CLAIMS:
        if all(tables.has(need) for need in claim.needs):  # methods_help has a test of its own
            measured = claim.measure(tables, Resampling(np.random.default_rng(0)))
            assert {name for form in measured.forms.values() for name in form.controls} == set(
                claim.rules_out
            )


def test_evidence_does_not_depend_on_which_claims_ran(run, tmp_path):
    """Without the suppression experiment, all other numbers stay."""
    before = json.loads((run / "evidence" / "verdicts.json").read_text())
    (run / "experiments" / "suppression.parquet").rename(tmp_path / "away.parquet")
    try:
        after = [e.to_dict() for e in evaluate_all(Tables(run), 3, tmp_path / "evidence")]
    finally:
        (tmp_path / "away.parquet").rename(run / "experiments" / "suppression.parquet")
    assert after == [entry for entry in before if entry["claim"] != "high_norm_is_causal"]


def test_missing_table_is_told_in_one_line(tmp_path):
    with pytest.raises(
        NormprobeError, match=r"expected .*sums\.parquet, which this run does not have; finish"
    ):
        _ = Tables(tmp_path).sums


def test_corrupt_tables_are_told_in_one_line(tmp_path):
    path = write_run(tmp_path / "run", n_problems=1)
    (path / "profile").mkdir()
    for name in ("traces/tokens.parquet", "traces/model.safetensors", "profile/layer_profile.json"):
        (path / name).write_bytes(b"\x08not a table\nat all")
    tables = Tables(path)
    for read in (lambda: tables.tokens, lambda: tables.signals("model"), lambda: tables.profile):
        with pytest.raises(NormprobeError) as told:
            read()
        assert "expected a readable table" in str(told.value)
        assert "\n" not in str(told.value)


def test_signals_of_other_tokens_are_refused(tmp_path):
    path = write_run(tmp_path / "run", n_problems=1)
    put(path, "signals/model", {"norm": np.ones((2, 5), np.float32), "surprisal": np.ones(5, np.float32)})
    with pytest.raises(NormprobeError, match=r"tokens in 'norm' .* got 5"):
        Tables(path).signals("model")


def test_has_asks_without_failing(tmp_path):
    path = write_run(tmp_path / "run", n_problems=1, subjects=("model",))
    tables = Tables(path)
    assert tables.has("z/model")
    assert tables.has("z/random")
    assert tables.has("roles")
    assert not tables.has("z/untrained")
    assert not tables.has("signals/early")
    assert not tables.has("sums")
    with pytest.raises(ValueError, match="expected one of"):
        tables.has("sum")
