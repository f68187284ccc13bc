"""Reinforcement of smol-thinker: what is rewarded, and that a training runs, resumes and changes its adapters."""

import dataclasses
import importlib.util

import pandas as pd
import pytest
import sft_fixture
import torch
from safetensors.torch import load_file
from sft_fixture import RECIPE as SUPERVISED
from sft_fixture import base, thinking

from normprobe.errors import NormprobeError
from normprobe.problems.smol_thinker.families import FAMILIES
from normprobe.training.smol_thinker import grpo, sft
from normprobe.training.smol_thinker.dialogue import response
from normprobe.training.smol_thinker.grpo import FORM, RECIPE, reward, train

NEEDED = (*sft_fixture.NEEDED, "trl")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs " + ", ".join(NEEDED)
)
SHORT = dataclasses.replace(RECIPE, n_steps=2, n_problems=2, group=2, max_new_tokens=8)
OFTEN = {"evaluate_every": 100, "save_every": 1}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Adapters of a small random model after one step of supervised training."""
    folder = tmp_path_factory.mktemp("sft")
    recipe = dataclasses.replace(SUPERVISED, n_steps=1)
    return sft.train(recipe, base(), thinking(folder / "tokenizer"), folder, evaluate_every=100, save_every=1)


def test_right_answers_and_their_form_are_rewarded():
    for family in FAMILIES.values():
        (problem,) = family.problems(1, 1, seed=0)
        right = response(family.demonstrate(problem), "think")
        assert reward(problem, right) == pytest.approx(1 + FORM)
        thought, _, _ = right.partition("</think>")
        assert reward(problem, thought + "</think>\n\nno answer<|im_end|>") == FORM
        assert reward(problem, thought) == 0
        assert reward(problem, right.removesuffix("<|im_end|>")) == 1
        assert reward(problem, right.replace("<think>", "")) == 1


def reward_of_letters(problem, written):
    return written.count("e") / len(written)


def test_a_training_that_was_stopped_goes_on_and_changes_the_adapters(start, tmp_path, monkeypatch):
    # A random model is never right, and equal rewards teach nothing.
    monkeypatch.setattr(grpo, "reward", reward_of_letters)
    whole = train(SHORT, base(), start, tmp_path / "whole", **OFTEN)
    part = tmp_path / "part"
    calls = []

    def stop(*arguments):
        calls.append(1)
        if len(calls) > SHORT.n_problems * SHORT.group:
            raise KeyboardInterrupt
        return reward_of_letters(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(grpo, "reward", stop)
        train(SHORT, base(), start, part, **OFTEN)
    again = train(SHORT, base(), start, part, **OFTEN)
    ours, resumed, first = (
        load_file(folder / "adapter_model.safetensors") for folder in (whole, again, start)
    )
    assert ours.keys() == resumed.keys() == first.keys()
    assert any((ours[name] != first[name]).any() for name in ours)
    for name in ours:
        torch.testing.assert_close(resumed[name], ours[name])
    log = pd.read_csv(part / "log.csv")
    assert log["step"].tolist() == [1, 2]
    assert log["length"].between(1, SHORT.max_new_tokens).all()
    with pytest.raises(NormprobeError, match="another"):
        train(dataclasses.replace(SHORT, lr=1.0), base(), start, part, **OFTEN)


def test_without_a_warm_up_it_says_what_to_run(tmp_path):
    with pytest.raises(NormprobeError, match=r"adapters to start from.*smol_thinker\.sft first"):
        grpo.main(["--start", str(tmp_path), "--out", str(tmp_path / "out")])
