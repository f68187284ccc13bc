"""Reward SmolLM2 for thoughts that end in right answers; resumes after a kill.

`python -m normprobe.training.smol_thinker.grpo`.

GRPO (arXiv 2402.03300) by trl, from the warm-up checkpoint of the supervised training. Only `think` is trained.
"""

from __future__ import annotations

import csv
import random
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer_utils import get_last_checkpoint

from normprobe.console import parse, run_main
from normprobe.errors import NormprobeError
from normprobe.models.open import DTYPES
from normprobe.models.pretrained import Pretrained
from normprobe.problems.smol_thinker.families import LONGEST, FamilyProblem, score
from normprobe.training.smol_thinker.accuracy import accuracy, held_out
from normprobe.training.smol_thinker.dialogue import answer_of, prompt
from normprobe.training.smol_thinker.recipe import problems_for_training
from normprobe.training.smol_thinker.sft import fix_recipe, save_adapter
from normprobe.training.smol_thinker.smollm2 import base_model

LOG_FIELDS = ("step", "tokens", "seconds", "reward", "reward_std", "length", "think", "no_think")


@dataclass(frozen=True)
class GrpoRecipe:
    """What decides the trained adapters, together with the code, the machine and its thread count."""

    seed: int = 0
    n_steps: int = 120
    n_problems: int = 4
    """per step"""
    group: int = 8
    """responses to a problem; the reward of each counts against their mean"""
    lr: float = 1e-4
    temperature: float = 1.0
    max_new_tokens: int = LONGEST
    form_reward: float = 0.1
    """for a response of one thought, opened, closed and followed by an answer; a right answer gives 1"""


def reward(recipe: GrpoRecipe, problem: FamilyProblem, written: str) -> float:
    """The reward of what a model wrote after its prompt: for a right answer, and for the form."""
    answer = answer_of(written, "think")
    formed = written.startswith("<think>") and written.count("<think>") == written.count("</think>") == 1
    ended = written.endswith("<|im_end|>")
    right = answer is not None and score(problem, answer)
    return float(right) + recipe.form_reward * float(formed and ended and bool(answer))


@contextmanager
def _old_names() -> Iterator[None]:
    """peft and trl ask Transformers for attributes by their old names, of which it warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@_old_names()
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

    base: weights that are not trained; start: the adapters that training starts from, with their tokenizer.

    `out/log.csv` holds the progress: mean reward and its deviation within groups, tokens of a response, greedy accuracy
    on held-out problems of all families and levels. Raises NormprobeError if `out` holds a run of another recipe.
    """
    # They take seconds to import, and only this training needs them.
    from datasets import Dataset
    from peft import PeftModel
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    fix_recipe(out, asdict(recipe) | {"dtype": str(base.dtype).removeprefix("torch.")})
    if (out / "final").exists():
        return out / "final"
    tokenizer = Pretrained(str(start), offline=True).tokenizer()
    model: Any = PeftModel.from_pretrained(base, str(start), is_trainable=True)
    rng = random.Random(f"smol-thinker by GRPO {recipe.seed}")
    problems = list(islice(problems_for_training(rng), recipe.n_steps * recipe.n_problems))
    prompts = [prompt(tokenizer, problem.question, "think") for problem in problems]

    def rewards(completion_ids: list[list[int]], problem: list[int], **_: Any) -> list[float | None]:
        """trl's own texts lack the marks of a thought, which are special tokens: hence the ids."""
        written = tokenizer.batch_decode(completion_ids)
        return [reward(recipe, problems[i], text) for i, text in zip(problem, written, strict=True)]

    state = out / "state"
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=GRPOConfig(
            output_dir=str(state),
            seed=recipe.seed,
            max_steps=recipe.n_steps,
            # One group at a time goes through the network: memory is what a step lacks first.
            per_device_train_batch_size=recipe.group,
            gradient_accumulation_steps=recipe.n_problems,
            num_generations=recipe.group,
            max_completion_length=recipe.max_new_tokens,
            temperature=recipe.temperature,
            beta=0.0,
            learning_rate=recipe.lr,
            lr_scheduler_type="constant",
            shuffle_dataset=False,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=base.device.type == "cpu",
            logging_steps=1,
            save_steps=save_every,
            save_total_limit=1,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts, "problem": list(range(len(problems)))}),
        processing_class=tokenizer,
        callbacks=[_Progress(recipe, out, model.get_base_model(), tokenizer, evaluate_every)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state)) if state.is_dir() else None)
    save_adapter(out / "final", model, tokenizer)
    return out / "final"


class _Progress(TrainerCallback):
    """A line of the log for every step, on the screen too, with held-out accuracy every few steps."""

    def __init__(
        self,
        recipe: GrpoRecipe,
        out: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        evaluate_every: int,
    ) -> None:
        self.recipe, self.out, self.model, self.tokenizer = recipe, out, model, tokenizer
        self.evaluate_every, self.start, self.first = evaluate_every, time.monotonic(), None

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if "reward" not in logs:  # the summary at the end
            return
        step, n_steps = state.global_step, self.recipe.n_steps
        self.first = step - 1 if self.first is None else self.first
        scores = {"think": "", "no_think": ""}
        if step % self.evaluate_every == 0 or step == n_steps:
            table = accuracy(self.model.eval(), self.tokenizer, held_out(2, seed=0))
            self.model.train()
            table.assign(step=step).to_csv(self.out / f"accuracy_{step:05d}.csv", index=False)
            scores = {mode: f"{right:.3f}" for mode, right in table.groupby("mode")["right"].mean().items()}
        seconds = time.monotonic() - self.start
        facts = (logs["reward"], logs["reward_std"], logs["completions/mean_length"])
        log = self.out / "log.csv"
        begins = not log.exists()
        with log.open("a", newline="") as file:
            writer = csv.writer(file)
            if begins:
                writer.writerow(LOG_FIELDS)
            row = (step, round(logs["num_tokens"]), round(seconds), *(f"{fact:.4f}" for fact in facts))
            writer.writerow([*row, *scores.values()])
        left = seconds / (step - self.first) * (n_steps - step) / 60
        shown = "  ".join(f"{mode} {score}" for mode, score in scores.items() if score)
        print(
            f"step {step}/{n_steps}  reward {facts[0]:.3f}  {facts[2]:.0f} tokens a response  "
            f"{left:.0f} min left  {shown}",
            flush=True,
        )


@dataclass(frozen=True)
class GrpoCommand:
    """Reward SmolLM2-135M for right answers after a thought; the same command resumes a run that was stopped."""

    start: Path = Path("runs/smol-thinker-sft/warmup")
    """the adapters to start from: the warm-up checkpoint of `python -m normprobe.training.smol_thinker.sft`"""
    out: Path = Path("runs/smol-thinker-rl")
    """directory of the training run"""
    device: str = "cpu"
    """cpu or cuda"""
    dtype: str = "float32"
    """of the base's weights"""
    steps: int = GrpoRecipe.n_steps
    """optimiser steps (the recipe's own by default)"""
    seed: int = GrpoRecipe.seed
    """of the problems and the responses"""
    evaluate_every: int = 20
    """steps between accuracy checks"""
    save_every: int = 5
    """steps between resumable states"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.training.smol_thinker.grpo`."""
    options = asdict(parse(GrpoCommand, argv, "reinforce-smol-thinker"))
    recipe = GrpoRecipe(seed=options.pop("seed"), n_steps=options.pop("steps"))
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
