"""The contest of signals: planted signals win, targets that a run lacks are absent, AUROCs beside slow references."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_fixture import Effects, write_run
from layout_fixture import put

from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.claims.measure.signal_comparison import (
    COMPUTED,
    CORRECT,
    CORRECT_ALIKE,
    FEATURES,
    compare_signals,
)
from normprobe.claims.registry import evaluate_all
from normprobe.runs.tables import Tables


def compare(path: Path) -> pd.DataFrame:
    return compare_signals(Tables(path), Resampling(np.random.default_rng(0)))


def numbers(frame: pd.DataFrame, target: str, reader: str = "this model") -> pd.DataFrame:
    return frame[(frame["target"] == target) & (frame["reader"] == reader)].set_index("signal")


def score(path: Path, accuracy: float) -> Path:
    """Answers to the run's problems, right with this probability whatever the signals."""
    tokens = Tables(path).tokens
    responses = tokens[["response_id", "problem_id", "split", "mode"]].drop_duplicates(ignore_index=True)
    right = np.random.default_rng(0).random(len(responses)) < accuracy
    token_ids = [[0]] * len(responses)
    put(path, "responses", responses.assign(token_ids=token_ids, correct=pd.array(right, dtype="boolean")))
    return path


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    return score(write_run(tmp_path_factory.mktemp("runs") / "scored", n_problems=80), accuracy=0.5)


@pytest.fixture(scope="module")
def compared(scored) -> pd.DataFrame:
    return compare(scored)


def test_every_signal_meets_every_target(compared):
    counts = compared.groupby(["reader", "target"]).size().unstack()
    assert (counts.loc["this model", [FEATURES, COMPUTED, CORRECT, CORRECT_ALIKE]] == 8).all()
    assert counts.loc["untrained twin", FEATURES] == 8
    # The twin reads the same tokens at the same positions.
    assert (counts.loc["untrained twin", [COMPUTED, CORRECT, CORRECT_ALIKE]] == 7).all()
    assert ((compared["low"] <= compared["estimate"]) & (compared["estimate"] <= compared["high"])).all()
    np.testing.assert_allclose(compared["strength"], compared["estimate"].abs())
    assert (compared.loc[compared["signal"] == "norm", "over_norm"] == 0).all()


def test_what_is_planted_in_the_norm_makes_it_win_with_its_sign(tmp_path):
    up, down = (
        numbers(compare(write_run(tmp_path / f"{effect}", Effects(critical=effect, tracking=2.0))), COMPUTED)
        for effect in (1.0, -1.0)
    )
    for told, sign in ((up, 1), (down, -1)):
        others = told.drop(index="norm")
        assert told["strength"].idxmax() == "norm"
        assert sign * told.loc["norm", "estimate"] > 0.2
        assert (others["over_norm_high"] < 0).all()


def test_shared_noise_makes_the_norm_follow_the_features_of_this_model_only(tmp_path):
    frame = compare(write_run(tmp_path / "run", Effects(tracking=2.0), subjects=("model", "untrained")))
    assert numbers(frame, FEATURES).loc["norm", "estimate"] > 0.4
    assert abs(numbers(frame, FEATURES, "untrained twin").loc["norm", "estimate"]) < 0.3


def slow_auroc(table: pd.DataFrame, within: list[str]) -> float:
    """Every right response against every wrong one of the same group."""
    won = []
    for _, group in table.groupby(within) if within else [(None, table)]:
        right, wrong = (group.loc[group["correct"] == is_right, "score"] for is_right in (True, False))
        won += [(a > b) + (a == b) / 2 for a in right for b in wrong]
    return float(np.mean(won))


@pytest.mark.parametrize(("target", "within"), [(CORRECT, []), (CORRECT_ALIKE, ["domain", "difficulty"])])
def test_correct_answers_agree_with_the_slow_reference(scored, compared, target, within):
    tables = Tables(scored)
    tokens, responses = tables.tokens, tables.responses
    rows = tokens[
        (tokens["split"] == "measure")
        & (tokens["mode"] == "think")
        & (tokens["segment"] == "thought")
        & ~tokens["sink"]
    ]
    expected = []
    for layer in (6, 7):
        scores = rows[["response_id", "problem_id"]].assign(
            score=tables.signals("model")["output_entropy"][layer, rows.index].astype(float)
        )
        means = scores.groupby("response_id", as_index=False).agg({"score": "mean", "problem_id": "first"})
        means = means.merge(responses[["response_id", "correct"]], on="response_id")
        means = means.merge(tables.problems[["problem_id", "domain", "difficulty"]], on="problem_id")
        expected.append(slow_auroc(means, within) - 0.5)
    found = numbers(compared, target).loc["output_entropy"]
    assert found["estimate"] == pytest.approx(np.mean(expected))
    assert found["n"] == 80


def test_targets_that_a_run_lacks_are_absent(tmp_path):
    path = write_run(tmp_path / "run", roles=False, subjects=("model",))
    assert set(compare(path)["target"]) == {FEATURES}
    (path / "reductions" / "tokens.safetensors").unlink()
    with pytest.raises(NotMeasurable, match="needs feature activations, roles or scored answers"):
        compare(path)


@pytest.mark.parametrize("accuracy", [1.0, 0.97])
def test_answers_of_which_hardly_any_is_wrong_tell_nothing(tmp_path, accuracy):
    """One or two wrong answers give an AUROC, but not one in every resample of the problems."""
    path = score(write_run(tmp_path / "run", n_problems=20), accuracy)
    assert set(compare(path)["target"]) == {FEATURES, COMPUTED}


def test_judging_a_run_writes_the_comparison_where_there_is_one(tmp_path):
    path = write_run(tmp_path / "run", n_problems=12)
    evaluate_all(Tables(path), 0, path / "evidence")
    written = pd.read_parquet(path / "evidence" / "signals.parquet")
    assert set(written["target"]) == {FEATURES, COMPUTED}
    poor = write_run(tmp_path / "poor", n_problems=9)
    evaluate_all(Tables(poor), 0, poor / "evidence")
    assert not (poor / "evidence" / "signals.parquet").exists()
