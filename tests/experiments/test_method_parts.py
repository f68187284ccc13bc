"""The jobs of an evaluation answer and judge the problems of the run's own source."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from normprobe.config import MethodSettings, ProblemSettings, ResponseSettings, Study
from normprobe.experiments.confidence import WINDOW
from normprobe.experiments.controls.deep_thinking import DEEP_THINKING
from normprobe.experiments.controls.latent_trajectory import LATENT_TRAJECTORY
from normprobe.experiments.controls.online_deepconf import GROUPS, LOWEST
from normprobe.experiments.method_parts import (
    MethodInputs,
    method_treatments,
    plain_treatments,
    sample,
    try_setting,
)
from normprobe.experiments.method_settings import papers
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import open_model
from normprobe.problems import open_source
from normprobe.problems.testbed.problems import make_problems


@pytest.fixture(scope="module")
def profile() -> LayerProfile:
    """τ so low that ALRR acts."""
    levels, norms = [0.0, 0.25, 0.5, 0.75, 1.0], [5.0, 9.0, 10.0, 11.0, 20.0]
    quantiles = {"think": [norms] * 12}
    identity = open_model("tiny-thinker").identity.to_dict()
    return LayerProfile(1, identity, levels, quantiles, quantiles, [14.0] * 12, None, [9], 8)


def inputs_of(folder: Path, profile: LayerProfile, source: str, methods: MethodSettings) -> MethodInputs:
    problems = open_source(source).load({"sae": 8, "select": 8, "measure": 8}, seed=0)
    problems.to_parquet(folder / "problems.parquet")
    study = Study(
        problems=ProblemSettings(source=source),
        responses=ResponseSettings(max_new_tokens=100),
        methods=methods,
    )
    return MethodInputs(study, profile, folder / "problems.parquet", folder / "responses.parquet")


def test_a_file_is_evaluated_on_its_own_problems_by_its_own_scorer(
    tmp_path: Path, profile: LayerProfile
) -> None:
    """Gold answers are written as 4.0, which the file's scorer takes for 4 and the testbed's own would not."""
    drawn = make_problems(40, seed=5, domains=["arithmetic"], difficulties=[1, 2])
    table = pd.DataFrame(
        {
            "problem_id": [problem.id for problem in drawn],
            "question": [problem.question for problem in drawn],
            "answer": [f"{problem.answer}.0" for problem in drawn],
            "split": [("sae", "select", "measure", "measure")[i % 4] for i in range(40)],
        }
    )
    table.to_parquet(tmp_path / "mine.parquet")
    plan = MethodSettings(tune=4, test=12, samples=2)
    inputs = inputs_of(tmp_path, profile, str(tmp_path / "mine.parquet"), plan)
    measured = table.loc[table["split"] == "measure", "problem_id"].tolist()[:12]

    plain = plain_treatments(inputs)
    greedy = plain[plain["treatment"] == "plain"]
    assert greedy["problem_id"].tolist() == measured
    assert greedy["correct"].mean() > 0.5, "tiny-thinker knows these, and 4 is 4.0 to the file's scorer"
    assert (plain["n_tokens"] <= 100).all()

    tuned = try_setting(inputs.regimes[0], papers(profile)[0], "tune", plan.tune, inputs)
    assert set(tuned["problem_id"]) <= set(table.loc[table["split"] == "select", "problem_id"])
    sampled = sample(1, (), inputs)
    assert sampled["problem_id"].tolist() == measured
    assert sampled["correct"].notna().all()
    assert np.isfinite(sampled[["lrs_A", *DEEP_THINKING, *LATENT_TRAJECTORY]]).all(axis=None)
    assert sampled["deep_thinking_ratio"].between(0, 1).all()
    assert sampled["lt_aligned_change"].between(-1, 1).all()
    windows = (sampled["n_tokens"] - WINDOW + 1).clip(lower=1)
    assert sampled[GROUPS].map(len).tolist() == windows.tolist()
    assert sampled[GROUPS].map(min).tolist() == sampled[LOWEST].tolist()


def test_a_damped_loop_spends_what_alrr_does_and_everywhere_more(
    tmp_path: Path, profile: LayerProfile
) -> None:
    inputs = inputs_of(tmp_path, profile, "testbed", MethodSettings(tune=2, test=2, samples=1))
    table = method_treatments((papers(profile)[0],), {9: 0.4}, inputs)
    passes = table.groupby("treatment")["extra_passes"].first()
    assert passes["ALRR: damped loop, always on"] == pytest.approx(2 * 4 / 12)
    assert 0 < passes["ALRR: damped loop"] < 2 * passes["ALRR: random gate"]
    rates = table.groupby("treatment")["rates"].first().map(json.loads)
    assert rates["ALRR: damped loop, always on"] == {"7": 1.0}


def test_the_testbed_is_evaluated_on_its_crowded_problems(tmp_path: Path, profile: LayerProfile) -> None:
    inputs = inputs_of(tmp_path, profile, "testbed", MethodSettings(tune=2, test=4, samples=1))
    regime = inputs.regimes[0]
    assert regime.name == "arithmetic 7–8, crowded, greedy"
    table = try_setting(regime, None, "test", 4, inputs)
    assert table["n_tokens"].max() > 100, "the regime has a limit of its own"
    assert not set(table["problem_id"]) & set(pd.read_parquet(inputs.problems)["problem_id"])
