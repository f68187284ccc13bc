"""The suppression experiment on a small random model: its treatments, its table, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.experiments.suppression import fill_experiments
from normprobe.experiments.suppression_treatments import (
    TREATMENTS,
    quantile,
    share_above_tau,
)
from normprobe.layer_profile import LayerProfile
from normprobe.models.initialise import initialise
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import PAD, VOCABULARY
from normprobe.tracing.responses import fill_responses
from normprobe.tracing.trace import Signals, trace

NEW_TOKENS = 16
SOURCES = {
    name: treatment.doses_of for name, treatment in TREATMENTS.items() if treatment.doses_of is not None
}


@pytest.fixture(scope="module")
def opened() -> OpenModel:
    """A random Qwen3 of 8 layers that says many different tokens, some of which end a response."""
    config = Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=list(range(10, len(VOCABULARY), 20)),
        pad_token_id=VOCABULARY.index(PAD),
    )
    model = Qwen3ForCausalLM(config)
    initialise(model, torch.Generator().manual_seed(3))
    return assemble(model, build_tokenizer(), "tiny", check=False)


@pytest.fixture(scope="module")
def problems() -> pd.DataFrame:
    drawn = make_problems(40, 0)
    return pd.DataFrame(
        {
            "problem_id": [problem.id for problem in drawn],
            "domain": [problem.domain for problem in drawn],
            "difficulty": [problem.difficulty for problem in drawn],
            "question": [problem.question for problem in drawn],
            "answer": [problem.answer for problem in drawn],
            "split": ["measure", "select"] * 20,
        }
    )


@pytest.fixture(scope="module")
def traced(
    opened: OpenModel, problems: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pd.DataFrame, Signals]:
    folder = tmp_path_factory.mktemp("responses")
    fill_responses(folder, HfEngine(opened), problems, max_new_tokens=NEW_TOKENS, progress=False)
    responses = pd.read_parquet(folder / "responses.parquet")
    return trace(opened, responses[responses["mode"] == "think"], problems, progress=False)


@pytest.fixture(scope="module")
def tokens(traced: tuple[pd.DataFrame, Signals]) -> pd.DataFrame:
    return traced[0]


@pytest.fixture(scope="module")
def profile(opened: OpenModel, traced: tuple[pd.DataFrame, Signals]) -> LayerProfile:
    """Measured on the split `select`, and with a τ that some norms exceed."""
    tokens, signals = traced
    measured = LayerProfile.measure(tokens, signals["norm"], opened.identity.to_dict())
    return replace(measured, tau=[quantile(measured, layer, 0.8) for layer in range(8)])


def conduct(
    path: Path,
    opened: OpenModel,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: LayerProfile,
    scorer=lambda text, gold: len(text) % 2 == 0,
    seed: int = 0,
    batch_size: int = 8,
) -> pd.DataFrame:
    path.mkdir(exist_ok=True)
    fill_experiments(
        path,
        HfEngine(opened),
        profile,
        problems,
        tokens,
        max_new_tokens=NEW_TOKENS,
        batch_size=batch_size,
        seed=seed,
        scorer=scorer,
        progress=False,
    )
    assert [file.name for file in path.iterdir()] == ["suppression.parquet"]
    return pd.read_parquet(path / "suppression.parquet")


@pytest.fixture(scope="module")
def table(
    tmp_path_factory: pytest.TempPathFactory,
    opened: OpenModel,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: LayerProfile,
) -> pd.DataFrame:
    return conduct(tmp_path_factory.mktemp("run"), opened, problems, tokens, profile)


def test_one_row_per_measured_problem_and_treatment(table: pd.DataFrame, problems: pd.DataFrame) -> None:
    measured = problems.loc[problems["split"] == "measure", "problem_id"].tolist()
    assert list(zip(table["treatment"], table["problem_id"], strict=True)) == [
        (treatment, problem) for treatment in TREATMENTS for problem in measured
    ]
    assert set(table["mode"]) == {"think"}
    assert table["n_tokens"].between(1, NEW_TOKENS).all()
    factor = table.groupby("treatment")["factor"].first()
    assert factor["plain"] == factor["rotation"] == 1.0
    assert factor["high_norm"] == factor["random_same_factor"] == 0.1
    assert [factor[f"high_norm_{milder}"] for milder in (0.75, 0.5, 0.25)] == [0.75, 0.5, 0.25]
    assert factor[["random_matched", "class_matched", "direction_only"]].isna().all()


def test_plain_is_untouched_and_every_other_arm_acts(table: pd.DataFrame, profile: LayerProfile) -> None:
    states = len(profile.chosen_layers) * table["n_tokens"]
    assert (table["n_suppressed"] <= states).all()
    assert (table["delta_norm"].isna() == (table["n_suppressed"] == 0)).all()
    acted = table.groupby("treatment")["n_suppressed"].sum()
    assert acted["plain"] == 0
    assert (acted.drop("plain") > 0).all()


def test_the_plain_arm_repeats_the_traced_responses(table: pd.DataFrame, tokens: pd.DataFrame) -> None:
    """What lets the traces' tokens name the classes of its steps."""
    said = tokens[(tokens["split"] == "measure") & (tokens["segment"] != "prompt")]
    plain = table[table["treatment"] == "plain"].set_index("problem_id")["n_tokens"]
    assert plain.to_dict() == said.groupby("problem_id").size().to_dict()


def test_random_arms_tell_how_many_tokens_they_share_with_their_source(table: pd.DataFrame) -> None:
    shared = table["on_same_tokens"]
    random, acted = table["treatment"].isin(list(SOURCES)), shared.notna()
    assert not acted[~random].any()
    assert acted[random].any()
    assert shared[acted].between(0, 1).all()
    by_treatment = shared.groupby(table["treatment"]).mean()
    assert by_treatment["random_matched"] == by_treatment["random_same_factor"]
    assert by_treatment["random_matched"] < by_treatment["class_matched"] < 1  # fewer tokens to move to


@pytest.mark.parametrize("treatment", SOURCES)
def test_random_arms_change_the_same_share_of_states_by_as_much(table: pd.DataFrame, treatment: str) -> None:
    """Equal counts per problem where the responses are equally long. ‖Δh‖, matched, is equal there too, but for doses
    beyond twice the state, which are cut: within 15 % on average over problems."""
    random, source = (
        table[table["treatment"] == name].reset_index(drop=True) for name in (treatment, SOURCES[treatment])
    )
    by_factor = "same_factor" in treatment
    same = (random["n_tokens"] == source["n_tokens"]) & (source["n_suppressed"] > 0)
    assert same.sum() >= 4
    assert (random["n_suppressed"] == source["n_suppressed"])[same].all()
    ratio = (random["delta_norm"] / source["delta_norm"])[same]
    assert by_factor or (ratio <= 1 + 1e-5).all()
    if not by_factor:
        assert ratio.mean() == pytest.approx(1, abs=0.15)


def test_low_norm_mirrors_the_share_above_tau(profile: LayerProfile) -> None:
    for layer in profile.chosen_layers:
        assert share_above_tau(profile, layer) == pytest.approx(0.2, abs=1e-6)
        assert quantile(profile, layer, 0.0) <= quantile(profile, layer, 0.2) < profile.tau[layer]
        beyond = replace(profile, tau=[1e9] * 8)
        assert share_above_tau(beyond, layer) == 0


def test_a_threshold_that_nothing_reaches_is_recorded_as_plain(
    tmp_path: Path,
    opened: OpenModel,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: LayerProfile,
) -> None:
    treatments = ["plain", "high_norm", "random_matched", "class_matched", "rotation", "direction_only"]
    got = conduct(tmp_path, opened, problems, tokens, replace(profile, tau=[1e9] * 8))
    got = got[got["treatment"].isin(treatments)]
    assert (got["n_suppressed"] == 0).all()
    by_treatment = [
        group.drop(columns=["treatment", "factor"]).reset_index(drop=True)
        for _, group in got.groupby("treatment")
    ]
    for other in by_treatment[1:]:
        pd.testing.assert_frame_equal(other, by_treatment[0])


def test_an_interrupted_experiment_resumes_to_the_same_table(
    tmp_path: Path,
    opened: OpenModel,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: LayerProfile,
    table: pd.DataFrame,
) -> None:
    calls = 0

    def interrupted(text: str, gold: str) -> bool:
        nonlocal calls
        calls += 1
        if calls == 105:  # in the sixth treatment
            raise KeyboardInterrupt
        return len(text) % 2 == 0

    with pytest.raises(KeyboardInterrupt):
        conduct(tmp_path, opened, problems, tokens, profile, scorer=interrupted)
    finished = (tmp_path / "treatments").glob("*.parquet")
    assert {file.stem for file in finished} == set(list(TREATMENTS)[:5])
    pd.testing.assert_frame_equal(conduct(tmp_path, opened, problems, tokens, profile), table)


def test_the_seed_deals_the_random_arms_only(
    tmp_path: Path,
    opened: OpenModel,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: LayerProfile,
    table: pd.DataFrame,
) -> None:
    other = conduct(tmp_path, opened, problems, tokens, profile, seed=1, batch_size=12)
    keyed = table["treatment"].isin([*SOURCES, "rotation"])
    # Another batch size, too: in float32 the answers stay, sums differ in their last digits.
    pd.testing.assert_frame_equal(other[~keyed], table[~keyed], rtol=1e-4)
    assert not np.array_equal(other["delta_norm"][keyed], table["delta_norm"][keyed], equal_nan=True)


def test_without_gold_answers_correct_is_missing(
    tmp_path: Path,
    opened: OpenModel,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: LayerProfile,
) -> None:
    got = conduct(tmp_path, opened, problems.assign(answer=None), tokens, profile)
    assert got["correct"].isna().all()


def test_bad_input_is_refused_and_leaves_nothing(
    tmp_path: Path,
    opened: OpenModel,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    profile: LayerProfile,
) -> None:
    cases = [
        (
            {"profile": replace(profile, model=profile.model | {"weights": "other"})},
            "expected a layer profile of tiny",
        ),
        ({"problems": problems.assign(split="select")}, "expected problems in the split measure, got none"),
    ]
    for i, (change, message) in enumerate(cases):
        given = {"opened": opened, "problems": problems, "tokens": tokens, "profile": profile} | change
        with pytest.raises(NormprobeError, match=message) as error:
            conduct(tmp_path / str(i), **given)
        assert "\n" not in str(error.value)
        assert not list((tmp_path / str(i)).iterdir())


def test_treatments_stand_after_their_source() -> None:
    order = list(TREATMENTS)
    assert all(order.index(source) < order.index(name) for name, source in SOURCES.items())
