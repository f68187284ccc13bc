"""Counterfactual importance: the sentence that decides stands out, and a killed stage resumes to the same tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from normprobe.config import ImportanceSettings
from normprobe.engines.base import Draws, Engine, Generated
from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.experiments import importance
from normprobe.experiments.importance import chosen_responses, fill_importance, with_importance
from normprobe.models.chat import Chat
from normprobe.models.identity import ModelIdentity
from normprobe.models.initialise import initialise
from normprobe.models.open import assemble
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.scoring import correct
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import PEOPLE, VOCABULARY

QUESTION = "math : a= 3 ; b: a *2 ; ? b"
LINKS, VALUES = ("then", "next"), tuple("0123456789")


@dataclass(frozen=True)
class PlantedEngine:
    """Writes three sentences of which the second alone decides the answer, which repeats its value.

    All links and values are drawn; what a prompt holds of the thought already is kept.
    """

    chat: Chat
    identity: ModelIdentity
    context: int | None = None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        names: Sequence[str],
        draws: Draws,
        **_: object,
    ) -> Generated:
        written = [
            self._write(list(prompt), draws(name, 4)) for prompt, name in zip(prompts, names, strict=True)
        ]
        return Generated(written, ["stop"] * len(written), None, [None] * len(written))

    def _write(self, prompt: list[int], uniform: np.ndarray) -> list[int]:
        thought = self.chat.text(prompt).rpartition("<think>")[2].split()
        first, second, third, value = (int(u * 10) for u in uniform)
        sentences = [
            f"plan : {('a', 'b')[first % 2]} ;",
            f"{LINKS[second % 2]} a= {VALUES[value]} ;",
            f"{LINKS[third % 2]} b= {VALUES[first]} ;",
        ]
        done = thought.count(";")
        if done > 1:
            value = int(thought[[i for i, word in enumerate(thought) if word == ";"][1] - 1])
        text = " ".join([*sentences[done:], "</think>", "answer", ":", VALUES[value], "<|im_end|>"])
        return list(self.chat._tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture
def talkative(make_tiny_qwen3) -> HfEngine:
    """A random network that says many different tokens, some of which end a response."""
    model = make_tiny_qwen3()
    model.config.initializer_range = 0.2
    initialise(model, torch.Generator().manual_seed(0))
    model.generation_config.eos_token_id = [VOCABULARY.index(person) for person in PEOPLE]
    return HfEngine(assemble(model, build_tokenizer(), "random", check=False))


def tables(engine: Engine, thoughts: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A measured problem and a response in think for each thought."""
    problems, responses = [], []
    for number, thought in enumerate(thoughts):
        prompt = engine.chat.prompt_ids(QUESTION, "think")
        ids = prompt + list(
            engine.chat._tokenizer(f"{thought} </think> answer : 6 <|im_end|>", add_special_tokens=False)[
                "input_ids"
            ]
        )
        spans = engine.chat.spans(ids, len(prompt))
        keys = {"problem_id": f"p{number}", "split": "measure"}
        problems.append({**keys, "answer": "6"})
        responses.append(
            {**keys, "response_id": f"p{number}/think/0", "mode": "think", "token_ids": np.array(ids)}
            | {"n_prompt": len(prompt), "truncated": False, "answer_start": spans.answer[0]}
            | {"thought_start": spans.thought[0], "thought_end": spans.thought[1]}
        )
    return pd.DataFrame(problems), pd.DataFrame(responses)


def fill(folder: Path, engine: Engine, thoughts: Sequence[str], **settings: object) -> pd.DataFrame:
    folder.mkdir(exist_ok=True)
    options = {"settings": ImportanceSettings(**settings), "max_new_tokens": 16, "seed": 0, "progress": False}
    fill_importance(folder, engine, *tables(engine, thoughts), scorer=correct, **options)
    return pd.read_parquet(folder / "sentences.parquet")


THOUGHTS = [
    "plan : b ; then a= 6 ; next b= 3 ;",
    "plan : a ; next a= 6 ; then b= 1 ;",
    "plan : b ; next a= 6 ; next b= 9 ;",
]


def test_the_sentence_that_decides_is_the_most_important(talkative, tmp_path):
    planted = PlantedEngine(talkative.chat, talkative.identity)
    assert isinstance(planted, Engine)
    found = fill(tmp_path / "importance", planted, THOUGHTS, draws=48)
    excess = found["total_variation"] - found["chance"]
    decides = found["sentence"] == 1
    assert (excess[decides] > 0.5).all()
    assert (excess[~decides].abs() < 0.2).all()
    # As it stands all answers are right, which another value would seldom be; 1 in 20 draws keeps the sentence.
    assert (found.loc[decides, "right_kept"] == 1).all()
    assert (found.loc[decides, "right_replaced"] < 0.3).all()
    assert (found["n_kept"] >= 48).all()
    assert (found["n_replaced"] + found["n_kept"] == 2 * 48).all()


def test_a_killed_stage_resumes_to_the_same_tables(talkative, tmp_path, monkeypatch):
    planted = PlantedEngine(talkative.chat, talkative.identity)
    whole = fill(tmp_path / "whole", planted, THOUGHTS, draws=12)
    assert (whole["total_variation"] > 0).any()
    draw, begun = importance._draw, []

    def dies(engine, response, *others, **options):
        begun.append(response["problem_id"])
        if len(begun) == 3:
            raise KeyboardInterrupt
        return draw(engine, response, *others, **options)

    monkeypatch.setattr(importance, "_draw", dies)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "killed", planted, THOUGHTS, draws=12)
    assert not (tmp_path / "killed" / "sentences.parquet").exists()
    resumed = fill(tmp_path / "killed", planted, THOUGHTS, draws=12)
    assert begun == ["p0", "p1", "p2", "p2"]
    pd.testing.assert_frame_equal(resumed, whole)
    for name in ("whole", "killed"):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [
            "draws.parquet",
            "sentences.parquet",
        ]
    first, second = (pd.read_parquet(tmp_path / name / "draws.parquet") for name in ("whole", "killed"))
    pd.testing.assert_frame_equal(first, second)


def test_draws_do_not_depend_on_batches_and_follow_the_seed(talkative, tmp_path):
    thoughts = [make_problems(1, 0, domains=("arithmetic",), difficulties=(3,))[0].thought_text]
    one, many = (
        fill(tmp_path / str(size), talkative, thoughts, draws=6, batch_size=size) for size in (1, 128)
    )
    pd.testing.assert_frame_equal(one, many)
    first, second = (pd.read_parquet(tmp_path / name / "draws.parquet") for name in ("1", "128"))
    pd.testing.assert_frame_equal(first, second)
    assert first["n_tokens"].nunique() > 1


def test_only_thoughts_that_came_to_an_answer_are_tried(talkative):
    _, responses = tables(talkative, THOUGHTS)
    responses.loc[0, "truncated"] = True
    assert chosen_responses(responses, 5)["problem_id"].tolist() == ["p1", "p2"]
    assert chosen_responses(responses, 1)["problem_id"].tolist() == ["p1"]
    for column, value in (("mode", "no_think"), ("split", "select"), ("answer_start", -1)):
        assert chosen_responses(responses.assign(**{column: value}), 5).empty


def test_no_thought_to_try_is_one_line_and_leaves_nothing(talkative, tmp_path):
    problems, responses = tables(talkative, THOUGHTS[:1])
    with pytest.raises(NormprobeError, match=r"expected thoughts with an answer .* got none"):
        fill_importance(
            tmp_path, talkative, problems, responses.assign(split="select"),
            settings=ImportanceSettings(), max_new_tokens=16, seed=0, progress=False,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
    with pytest.raises(NormprobeError, match=r"expected importance\.draws of 5 or more, got 4"):
        ImportanceSettings(draws=4)


def test_too_few_draws_of_either_group_leave_the_importance_missing():
    draws = pd.DataFrame(
        {
            "response_id": "r",
            "sentence": np.repeat([0, 1, 2], 6),
            "replaced": [True] * 6 + [True] * 4 + [False] * 8,
            "answer": ["1"] * 6 + ["2"] * 12,
            "correct": pd.array([None] * 18, dtype="boolean"),
        }
    )
    found = with_importance(pd.DataFrame({"response_id": ["r", "r"], "sentence": [0, 1]}), draws)
    assert found[["n_replaced", "n_kept"]].to_numpy().tolist() == [[6, 6], [4, 8]]
    assert found["total_variation"].tolist()[0] == 1.0
    assert found["total_variation"].isna().tolist() == [False, True]
    assert found["right_kept"].isna().all()
