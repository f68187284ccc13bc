"""Hard tokens and the norm: read at the state that predicts, grown since the early checkpoint, not due to frequency."""

from pathlib import Path

import numpy as np
import pytest
from claims_fixture import LAYERS, Effects, write_run
from safetensors.numpy import load_file, save_file

from normprobe.claims.hard_tokens_grow_norm import CLAIM
from normprobe.claims.measure.resampling import Resampling
from normprobe.claims.registry import evaluate_all
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import spearman

HARD = Effects(hard=0.2)


def judge(path: Path):
    return CLAIM.judge(Tables(path), Resampling(np.random.default_rng(0)), 0)


def rho(evidence) -> dict[tuple[str, str], float]:
    return {(control.form, control.name): control.estimate for control in evidence.controls}


def edit(run: Path, subject: str, signal: str, change) -> None:
    path = run / "traces" / f"{subject}.safetensors"
    signals = load_file(path)
    signals[signal] = change(signals[signal]).astype(np.float32)
    save_file(signals, path)


def test_it_is_the_partial_correlation_of_each_problem_at_the_state_before(tmp_path):
    run = write_run(tmp_path / "run", HARD, n_problems=10)
    evidence, series = judge(run)
    tables = Tables(run)
    tokens = tables.tokens
    measured = tokens[
        (tokens["split"] == "measure")
        & tokens["mode"].isin(["think", "no_think"])
        & tokens["segment"].isin(["thought", "answer"])
    ]
    word, at = measured["token_id"], tokens["token_id"].iloc[measured.index - 1].set_axis(measured.index)
    frequency, frequency_at = word.map(word.value_counts()), at.map(at.value_counts())
    expected = np.zeros(LAYERS)
    for _, problem in measured.groupby("problem_id"):
        rows = problem.index
        given = [of[rows].to_numpy(dtype=float) for of in (measured["position"], frequency, frequency_at)]
        norm = tables.signals("model")["norm"][:, rows - 1].astype(float)
        early = np.broadcast_to(tables.signals("early")["surprisal"][rows].astype(float), norm.shape)
        expected += spearman(early, norm, *given) / 10
    found = series[
        (series["quantity"] == "final norm") & (series["name"] == "this model") & (series["layer"] >= 0)
    ]
    np.testing.assert_allclose(found["estimate"], expected, atol=1e-6)
    assert evidence.estimate == pytest.approx(expected[-2:].mean(), abs=1e-6)


def test_a_relation_that_was_there_early_did_not_grow(tmp_path):
    run = write_run(tmp_path / "run")
    hardness = Tables(run).signals("early")["surprisal"]
    for subject in ("model", "early"):
        edit(run, subject, "norm", lambda norm: norm * np.exp(0.2 * np.nan_to_num(np.roll(hardness, -1))))
    evidence, _ = judge(run)
    assert evidence.estimate > 0.4
    assert rho(evidence)["final norm", "early checkpoint"] > 0.4
    assert abs(rho(evidence)["growth", "this model"]) < 0.1
    assert evidence.verdict == "not supported"


def test_norms_before_words_that_are_hard_are_not_norms_before_hard_tokens(tmp_path):
    """Surprisal and norm both follow the word to come: no occurrence of it is harder than another."""
    run = write_run(tmp_path / "run")
    word = Tables(run).tokens["token_id"].to_numpy() % 11
    edit(run, "early", "surprisal", lambda surprisal: word + 0.1 * surprisal)
    edit(run, "model", "norm", lambda norm: norm * np.exp(0.1 * np.roll(word, -1)))
    evidence, _ = judge(run)
    assert evidence.estimate > 0.3
    assert abs(rho(evidence)["frequency-matched", "this model"]) < 0.1
    assert evidence.decision.form == "frequency-matched"
    assert evidence.verdict == "not supported"


def test_the_norm_at_the_token_itself_is_told_and_decides_nothing(tmp_path):
    run = write_run(tmp_path / "run")
    hardness = np.nan_to_num(Tables(run).signals("early")["surprisal"])
    edit(run, "model", "norm", lambda norm: norm * np.exp(0.2 * hardness))
    evidence, _ = judge(run)
    assert rho(evidence)["norm at the token itself", "this model"] > 0.4
    assert abs(evidence.estimate) < 0.1
    assert evidence.verdict == "not supported"


def test_states_that_are_sinks_are_left_out(tmp_path):
    """Massive norms before hard tokens, all of them sinks: nothing is left of the relation."""
    run = write_run(tmp_path / "run")
    tokens = Tables(run).tokens
    hard = np.roll(Tables(run).signals("early")["surprisal"], -1) > 2
    edit(run, "model", "norm", lambda norm: np.where(hard, 100 * norm, norm))
    assert judge(run)[0].estimate > 0.3
    tokens.assign(sink=tokens["sink"] | hard).to_parquet(run / "traces" / "tokens.parquet")
    assert abs(judge(run)[0].estimate) < 0.1


def test_without_the_untrained_twin_it_stays_open(tmp_path):
    evidence, _ = judge(write_run(tmp_path / "run", HARD, subjects=("model", "early")))
    assert evidence.verdict == "inconclusive"
    assert ("growth", "untrained twin") in evidence.decision.missing


def test_without_an_early_checkpoint_it_is_skipped(tmp_path):
    run = write_run(tmp_path / "run", HARD, subjects=("model", "untrained"), n_problems=10)
    evidence = evaluate_all(Tables(run), 0, run / "evidence")
    assert "hard_tokens_grow_norm" not in {judged.claim for judged in evidence}
    assert "it needs signals/early" in (run / "evidence" / "skipped.json").read_text()
