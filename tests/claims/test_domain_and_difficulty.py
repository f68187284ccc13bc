"""Amplification by difficulty and spike by domain: each half alone is not enough, and neither is length."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_fixture import Effects, write_run
from safetensors.numpy import load_file, save_file

from normprobe.claims.domain_and_difficulty import CLAIM, SMALLEST_EFFECT
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.runs.tables import Tables

BOTH = Effects(difficulty=0.1, domain=0.2)


def judge(path: Path):
    return CLAIM.judge(Tables(path), Resampling(np.random.default_rng(0)), 0)


def shares(evidence) -> dict[tuple[str, str], float]:
    return {(control.form, control.name): control.estimate for control in evidence.controls}


def scale_norms(run: Path, log_factor: np.ndarray) -> None:
    path = run / "traces" / "model.safetensors"
    signals = load_file(path)
    signals["norm"] = (signals["norm"] * np.exp(log_factor)).astype(np.float32)
    save_file(signals, path)


def test_one_half_alone_is_not_the_claim(tmp_path):
    for half in ("difficulty", "domain"):
        evidence, _ = judge(write_run(tmp_path / half, Effects(**{half: getattr(BOTH, half)})))
        other = {"difficulty": "domain", "domain": "difficulty"}[half]
        assert evidence.verdict != "supported"
        assert evidence.decision.margin < SMALLEST_EFFECT
        assert evidence.decision.form.startswith(other)


def test_a_fall_with_difficulty_is_told_with_its_sign(tmp_path):
    evidence, _ = judge(write_run(tmp_path / "run", Effects(difficulty=-0.1, domain=0.2)))
    assert evidence.verdict == "not supported"
    assert evidence.estimate < -0.5


@pytest.mark.parametrize(
    "modes", [["think", "filler"], ["think"]], ids=["any length", "the thought's length"]
)
def test_norms_that_rise_along_a_response_are_not_amplification(tmp_path, modes):
    """Harder problems have longer thoughts. Filler tells where any text would do; the first tokens tell where not."""
    run = write_run(tmp_path / "run", Effects(domain=0.2))
    tokens = Tables(run).tokens
    scale_norms(run, 0.03 * (tokens["position"] * tokens["mode"].isin(modes)).to_numpy())
    evidence, _ = judge(run)
    assert evidence.verdict != "supported"
    assert evidence.decision.margin < SMALLEST_EFFECT
    assert evidence.estimate > 0.5
    found = shares(evidence)
    assert (found["difficulty", "filler instead of a thought"] > 0.5) == ("filler" in modes)
    assert abs(found["difficulty, first 8 tokens", "this model"]) < 0.2


def test_words_that_differ_by_domain_separate_them_in_a_twin_too(tmp_path):
    run = write_run(tmp_path / "run", BOTH)
    save_file(load_file(run / "traces" / "model.safetensors"), run / "traces" / "untrained.safetensors")
    evidence, _ = judge(run)
    assert evidence.verdict == "not supported"
    assert shares(evidence)["difficulty", "untrained twin"] == pytest.approx(evidence.estimate)


@pytest.mark.parametrize(
    "missing", [{"modes": ("think", "no_think")}, {"subjects": ("model",)}], ids=["filler", "twin"]
)
def test_a_missing_control_leaves_it_open(tmp_path, missing):
    evidence, series = judge(write_run(tmp_path / "run", BOTH, **missing))
    assert evidence.verdict == "inconclusive"
    assert set(series.loc[series["domain"] == "recall", "name"]) == {"this model"}


def test_the_series_hold_the_mean_amplification_of_every_domain_and_difficulty(tmp_path):
    run = write_run(tmp_path / "run", Effects(difficulty=0.1))
    _, series = judge(run)
    curves = series[(series["quantity"] == "amplification") & (series["name"] == "this model")]
    assert len(curves) == 4 * 4
    assert (curves["low"] <= curves["estimate"]).all()
    assert (curves["estimate"] <= curves["high"]).all()
    tables = Tables(run)
    chosen = tables.tokens[
        (tables.tokens["split"] == "measure")
        & (tables.tokens["domain"] == "boolean")
        & (tables.tokens["difficulty"] == 3)
        & tables.tokens["segment"].isin(["thought", "answer"])
    ]
    norm = pd.DataFrame(tables.signals("model")["norm"].T.astype(float)).loc[chosen.index]
    means = norm.groupby([chosen["problem_id"], chosen["mode"]]).mean()
    by_hand = np.log(means.xs("think", level=1) / means.xs("no_think", level=1)).to_numpy().mean()
    here = curves[(curves["domain"] == "boolean") & (curves["difficulty"] == 3)]
    assert here["estimate"].item() == pytest.approx(by_hand)


@pytest.mark.parametrize("column, fill", [("domain", None), ("difficulty", pd.NA), ("domain", "math")])
def test_problems_without_two_domains_and_difficulties_are_not_judged(tmp_path, column, fill):
    run = write_run(tmp_path / "run", BOTH)
    Tables(run).problems.assign(**{column: fill}).to_parquet(run / "problems" / "problems.parquet")
    with pytest.raises(
        NotMeasurable, match="10 measured problems of known domain and difficulty, and two of each"
    ):
        judge(run)


def test_problems_of_unknown_difficulty_are_left_out(tmp_path):
    run = write_run(tmp_path / "run", BOTH)
    problems = Tables(run).problems
    unknown = problems["problem_id"].isin(problems["problem_id"].iloc[:20])
    problems["difficulty"] = problems["difficulty"].astype("Int64").mask(unknown)
    problems.to_parquet(run / "problems" / "problems.parquet")
    evidence, _ = judge(run)
    assert evidence.n == 30
    assert evidence.estimate > 0.5
