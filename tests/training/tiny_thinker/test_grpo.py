"""Reinforcement of tiny-thinker: what is rewarded, and that a training runs from a checkpoint and changes it."""

import dataclasses
import importlib.util

import pandas as pd
import pytest
from safetensors.torch import load_file

from normprobe.errors import NormprobeError
from normprobe.problems.bundled import TESTBED
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.vocabulary import END, END_THINK
from normprobe.training.tiny_thinker import grpo
from normprobe.training.tiny_thinker.grpo import RECIPE, reward, train

SHORT = dataclasses.replace(RECIPE, n_steps=2, n_problems=2, group=2, max_new_tokens=8)
OFTEN = {"device": "cpu", "evaluate_every": 100, "save_every": 1}


def test_only_a_right_answer_behind_a_closed_thought_is_rewarded():
    for problem in make_problems(8, 0):
        right = f"{problem.thought_text} {END_THINK} answer : {problem.answer} {END}"
        assert reward(problem, right) == 1
        assert reward(problem, f"answer : {problem.answer} {END}") == 0
        assert reward(problem, f"{problem.thought_text} {END_THINK} answer : . {END}") == 0


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl")
def test_a_training_changes_its_checkpoint_and_is_not_run_twice(tmp_path, monkeypatch):
    # Eight tokens hold no thought, and equal rewards teach nothing.
    monkeypatch.setattr(grpo, "reward", lambda _, written: written.count("e") / len(written))
    final = train(SHORT, TESTBED / "early", tmp_path / "rl", **OFTEN)
    ours, first = (load_file(folder / "model.safetensors") for folder in (final, TESTBED / "early"))
    assert any((ours[name] != first[name]).any() for name in first)
    log = pd.read_csv(tmp_path / "rl" / "log.csv")
    assert log["step"].tolist() == [1, 2]
    assert log["think"].notna().tolist() == [False, True]
    assert train(SHORT, TESTBED / "early", tmp_path / "rl", **OFTEN) == final
    assert len(pd.read_csv(tmp_path / "rl" / "log.csv")) == 2


def test_without_a_checkpoint_it_says_so(tmp_path):
    with pytest.raises(NormprobeError, match=r"expected a checkpoint with model\.safetensors"):
        train(SHORT, tmp_path, tmp_path / "rl", **OFTEN)
