"""Reward tiny-thinker for thoughts that end in right answers: `python -m normprobe.training.tiny_thinker.grpo`.

It starts from the warm-up checkpoint of its training, which goes on by demonstrations there, so that the two differ in
what taught them alone. Only `think` is trained. Resumes after a kill.
"""

from __future__ import annotations

import random
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel

from normprobe.console import parse, run_main
from normprobe.problems.testbed.problems import Problem, draw_problem, make_problems
from normprobe.problems.testbed.scoring import correct
from normprobe.problems.testbed.vocabulary import DOMAINS, END, END_THINK, MAX_DIFFICULTY
from normprobe.training.checkpoint import save_model
from normprobe.training.grpo import GrpoRecipe, reinforce
from normprobe.training.progress import fix_recipe
from normprobe.training.tiny_thinker.accuracy import MAX_NEW_TOKENS, accuracy, prompt
from normprobe.training.tiny_thinker.model_card import open_checkpoint

RECIPE = GrpoRecipe(n_steps=200, n_problems=16, lr=3e-4, max_new_tokens=MAX_NEW_TOKENS)


def reward(problem: Problem, written: str) -> float:
    """1 for a right answer behind a thought that was closed, else 0."""
    _, closed, answer = written.partition(END)[0].rpartition(END_THINK)
    return float(bool(closed) and correct(answer, problem.answer))


def train(
    recipe: GrpoRecipe, start: Path, out: Path, *, device: str, evaluate_every: int, save_every: int
) -> Path:
    """Run or resume the recipe in `out` from a checkpoint; returns the directory of the final one (`out/final`).

    Raises NormprobeError if there is no checkpoint in `start`, or `out` holds a run of another recipe.
    """
    model, tokenizer = open_checkpoint(start, device)
    fix_recipe(out, asdict(recipe))
    if (out / "final").exists():
        return out / "final"
    rng = random.Random(f"tiny-thinker by GRPO {recipe.seed}")
    problems = [
        draw_problem(rng, rng.choice(DOMAINS), rng.randint(1, MAX_DIFFICULTY), "train")
        for _ in range(recipe.n_steps * recipe.n_problems)
    ]
    held_out = make_problems(128, seed=12345)

    def evaluate(model: PreTrainedModel) -> pd.DataFrame:
        answers = {mode: accuracy(model, tokenizer, held_out, mode) for mode in ("think", "no_think")}
        return pd.DataFrame(answers).melt(var_name="mode", value_name="right")

    reinforce(
        recipe,
        model,
        tokenizer,
        [prompt(tokenizer, problem, "think") for problem in problems],
        lambda number, written: reward(problems[number], written),
        out,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        save_every=save_every,
    )
    save_model(out / "final", model, tokenizer)
    return out / "final"


@dataclass(frozen=True)
class TinyGrpoCommand:
    """Reward tiny-thinker for right answers after a thought; the same command resumes a run that was stopped."""

    start: Path = Path("runs/tiny-thinker-training/warmup")
    """the checkpoint to start from: the warm-up of `python -m normprobe.training.tiny_thinker.train`"""
    out: Path = Path("runs/tiny-thinker-rl")
    """directory of the training run"""
    device: str = "cpu"
    """cpu or cuda"""
    steps: int = RECIPE.n_steps
    """optimiser steps (the recipe's own by default)"""
    seed: int = RECIPE.seed
    """of the problems and the responses"""
    evaluate_every: int = 20
    """steps between accuracy checks"""
    save_every: int = 20
    """steps between resumable states"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.training.tiny_thinker.grpo`."""
    options = asdict(parse(TinyGrpoCommand, argv, "reinforce-tiny-thinker"))
    recipe = replace(RECIPE, seed=options.pop("seed"), n_steps=options.pop("steps"))
    print(f"trained: {train(recipe, **options)}")


if __name__ == "__main__":
    sys.exit(run_main(main))
