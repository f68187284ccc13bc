"""The training program: the same data and weights whether or not it was killed; checkpoints that load anywhere."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from normprobe.errors import NormprobeError
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import END_THINK, VOCABULARY
from normprobe.training.tiny_thinker import train as training
from normprobe.training.tiny_thinker.accuracy import accuracy, prompt
from normprobe.training.tiny_thinker.recipe import Recipe, dialogue, pool

RECIPE = Recipe(
    n_steps=6,
    steps_per_pool=2,
    microbatches=2,
    microbatch_tokens=256,
    early_share=0.5,
    warmup_steps=2,
    pretraining_share=0.4,
)


def run(out: Path, recipe: Recipe = RECIPE) -> Path:
    return training.train(recipe, out, device="cpu", compile=False, evaluate_every=100, save_every=1)


def test_a_killed_run_resumes_to_the_very_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "accuracy", lambda *_: torch.zeros(1))  # nothing to learn from six steps
    whole = load_file(run(tmp_path / "whole") / "model.safetensors")
    step = training.train_step

    def killed_at_step_three(*arguments: object) -> float:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train_step", killed_at_step_three)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    monkeypatch.setattr(training, "train_step", step)
    resumed = load_file(run(tmp_path / "killed") / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not torch.equal(
        whole["model.norm.weight"], load_file(tmp_path / "whole/early/model.safetensors")["model.norm.weight"]
    )
    with pytest.raises(NormprobeError, match="expected the recipe of"):
        run(tmp_path / "whole", replace(RECIPE, seed=1))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole/final", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole/final", local_files_only=True)
    for mode in ("think", "no_think", "filler"):
        assert accuracy(model.eval(), tokenizer, make_problems(4, 0), mode).shape == (4,)


def test_the_initialisation_is_exact_and_differs_between_seeds() -> None:
    first, again, other = (training.untrained_model(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_only_the_response_is_predicted_and_every_token_weighs_the_same() -> None:
    (problem,) = make_problems(1, 3, split="train", domains=["arithmetic"], difficulties=[4])
    for mode in ("think", "no_think", "filler"):
        sequence = dialogue(problem, mode)
        words = [VOCABULARY[i] for i in sequence.ids]
        predicted = [word for word, weight in zip(words, sequence.weights, strict=True) if weight]
        assert set(sequence.weights) == {0.0, 1.0}
        assert predicted[-4:] == ["answer", ":", problem.answer, "<|im_end|>"]
        assert (END_THINK in predicted) == (mode == "think"), "what the template inserts is never predicted"
        assert words.count(".") == (len(problem.thought) if mode == "filler" else 0)


def test_dialogues_agree_with_the_chat_template() -> None:
    testbed_tokenizer = build_tokenizer()
    (problem,) = make_problems(1, 3)
    for mode in ("think", "no_think", "filler"):
        ids = testbed_tokenizer(prompt(testbed_tokenizer, problem, mode))["input_ids"]
        sequence = dialogue(problem, mode)
        assert sequence.ids[: len(ids)] == ids
        assert not any(sequence.weights[: len(ids)])
        assert all(sequence.weights[len(ids) :])


def test_every_mode_gets_the_same_problems() -> None:
    recipe = Recipe(n_steps=10, steps_per_pool=2, microbatch_tokens=512, pretraining_share=0.2)
    drawn = [s for step in pool(recipe, 2) for batch in step for s in batch]
    modes = {True: 0, False: 0}
    for sequence in drawn:
        words = [VOCABULARY[i] for i in sequence.ids]
        assert words[0] == "<|im_start|>"
        modes["plan" in words] += 1
    assert abs(modes[False] - 2 * modes[True]) <= 2, (
        "think against no_think and filler, but for the last triple"
    )


def test_a_recipe_decides_the_weight_of_thoughts_the_optimiser_and_the_z_loss(tmp_path: Path) -> None:
    (problem,) = make_problems(1, 3, split="train")
    light = dialogue(problem, "think", thought_weight=0.25).weights
    assert light.count(0.25) == len(problem.thought) + 1
    assert light.count(1.0) == 4
    model = training.untrained_model(0)
    kinds = [type(each) for each in training.optimisers(model, replace(RECIPE, optimiser="adamw"))]
    assert kinds == [torch.optim.AdamW] * 2
    step = next(iter(pool(RECIPE, 0)))
    losses = []
    for z_loss in (0.0, 0.1):
        model, recipe = training.untrained_model(0), replace(RECIPE, z_loss=z_loss)
        losses.append(
            training.train_step(model.model, model, training.optimisers(model, recipe), step, recipe, 0)
        )
    assert losses[1] > losses[0]
