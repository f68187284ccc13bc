"""Reward SmolLM2 for thoughts that end in right answers; resumes after a kill.

`python -m normprobe.training.smol_thinker.grpo`.

It starts from the warm-up checkpoint of the supervised training. Only `think` is trained.
"""

from __future__ import annotations

import random
import sys
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from normprobe.console import parse, run_main
from normprobe.errors import NormprobeError
from normprobe.models.open import DTYPES
from normprobe.problems import bundled
from normprobe.problems.smol_thinker.families import LONGEST, FamilyProblem, score
from normprobe.training.grpo import GrpoRecipe, old_names, reinforce
from normprobe.training.progress import fix_recipe
from normprobe.training.smol_thinker.accuracy import accuracy, held_out
from normprobe.training.smol_thinker.dialogue import answer_of, prompt
from normprobe.training.smol_thinker.recipe import problems_for_training
from normprobe.training.smol_thinker.sft import save_adapter
from normprobe.training.smol_thinker.smollm2 import base_model, bundled_tokenizer

FORM = 0.1
"""Reward of a response of one thought, opened, closed and followed by an answer; a right answer gives 1."""
RECIPE = GrpoRecipe(n_steps=120, n_problems=4, lr=1e-4, max_new_tokens=LONGEST)


def reward(problem: FamilyProblem, written: str) -> float:
    """The reward of what a model wrote after its prompt: for a right answer, and for the form."""
    answer = answer_of(written, "think")
    formed = written.startswith("<think>") and written.count("<think>") == written.count("</think>") == 1
    ended = written.endswith("<|im_end|>")
    right = answer is not None and score(problem, answer)
    return float(right) + FORM * float(formed and ended and bool(answer))


def train(
    recipe: GrpoRecipe,
    base: PreTrainedModel,
    start: Path,
    out: Path,
    *,
    evaluate_every: int,
    save_every: int,
) -> Path:
    """Run or resume the recipe in `out`; returns the folder of the final adapters (`out/final`).

    base: weights that are not trained; start: the adapters that training starts from.
    Raises NormprobeError if `out` holds a run of another recipe.
    """
    from peft import PeftModel

    fix_recipe(out, asdict(recipe) | {"form": FORM, "dtype": str(base.dtype).removeprefix("torch.")})
    if (out / "final").exists():
        return out / "final"
    tokenizer = bundled_tokenizer()
    with old_names():
        model: Any = PeftModel.from_pretrained(base, str(start), is_trainable=True)
    # Else peft would ask a hub for the base's configuration whenever a state is saved.
    model.peft_config["default"].base_model_name_or_path = ""
    rng = random.Random(f"smol-thinker by GRPO {recipe.seed}")
    problems = list(islice(problems_for_training(rng), recipe.n_steps * recipe.n_problems))
    tested = held_out(2, seed=0)
    reinforce(
        recipe,
        model,
        tokenizer,
        [prompt(tokenizer, problem.question, "think") for problem in problems],
        lambda number, written: reward(problems[number], written),
        out,
        evaluate=lambda model: accuracy(model, tokenizer, tested),
        evaluate_every=evaluate_every,
        save_every=save_every,
    )
    save_adapter(out / "final", model, tokenizer)
    return out / "final"


@dataclass(frozen=True)
class GrpoCommand:
    """Reward SmolLM2-135M for right answers after a thought; the same command resumes a run that was stopped."""

    start: Path = bundled.MODELS["smol-thinker:warmup"].folder
    """the adapters to start from: the bundled warm-up checkpoint, or another one's folder"""
    out: Path = Path("runs/smol-thinker-rl")
    """directory of the training run"""
    device: str = "cpu"
    """cpu or cuda"""
    dtype: str = "float32"
    """of the base's weights"""
    steps: int = RECIPE.n_steps
    """optimiser steps (the recipe's own by default)"""
    seed: int = RECIPE.seed
    """of the problems and the responses"""
    evaluate_every: int = 20
    """steps between accuracy checks"""
    save_every: int = 5
    """steps between resumable states"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.training.smol_thinker.grpo`."""
    options = asdict(parse(GrpoCommand, argv, "reinforce-smol-thinker"))
    recipe = replace(RECIPE, seed=options.pop("seed"), n_steps=options.pop("steps"))
    start, out = options.pop("start"), options.pop("out")
    if not (start / "adapter_model.safetensors").is_file():
        raise NormprobeError(
            f"expected the adapters to start from in {start}, got none; run "
            "python -m normprobe.training.smol_thinker.sft first"
        )
    base = base_model(DTYPES[options.pop("dtype")], torch.device(options.pop("device")))
    print(f"trained: {train(recipe, base, start, out, **options)}")


if __name__ == "__main__":
    sys.exit(run_main(main))
