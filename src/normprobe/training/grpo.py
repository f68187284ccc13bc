"""Reinforce what a model writes by rewards: GRPO (arXiv 2402.03300) by trl."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer_utils import get_last_checkpoint

from normprobe.training.progress import Progress
from normprobe.training.sampling import respond


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe:
    """What decides the trained weights, together with the code, the machine and its thread count."""

    seed: int = 0
    n_steps: int
    n_problems: int
    """per step"""
    group: int = 8
    """responses to a problem; the reward of each counts against their mean"""
    lr: float
    temperature: float = 1.0
    max_new_tokens: int


@contextmanager
def old_names() -> Iterator[None]:
    """peft and trl ask Transformers for attributes by their old names, of which it warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@old_names()
def reinforce(
    recipe: GrpoRecipe,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    reward: Callable[[int, str], float],
    out: Path,
    *,
    evaluate: Callable[[PreTrainedModel], pd.DataFrame],
    evaluate_every: int,
    save_every: int,
) -> None:
    """Train a model in place, or its adapters if it has some; goes on where a training in `out` was stopped.

    prompts: of `n_steps · n_problems` problems in turn; reward: of a prompt's number and what was written after it;
    evaluate: answers to held-out problems with columns `mode` and `right`.

    `out/log.csv` holds the progress: mean reward and its deviation within groups, tokens of a response, accuracy.
    """
    # They take seconds to import, and only this training needs them.
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    def rewards(completion_ids: list[list[int]], number: list[int], **_: Any) -> list[float | None]:
        """trl's own texts lack the marks of a thought, which are special tokens: hence the ids."""
        written = tokenizer.batch_decode(completion_ids)
        return [reward(i, text) for i, text in zip(number, written, strict=True)]

    class Trainer(GRPOTrainer):
        """trl's, with responses written by `respond`, which on a GPU takes a fraction of the time."""

        def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
            batch = tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt")
            batch, ends = batch.to(inner.device), self.eos_token_ids
            written = respond(
                inner,
                batch["input_ids"],
                batch["attention_mask"],
                ends=ends,
                max_new_tokens=recipe.max_new_tokens,
                temperature=recipe.temperature,
            ).tolist()
            lengths = [
                next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in written
            ]
            return [row[:length] for row, length in zip(written, lengths, strict=True)], None

    state = out / "state"
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    trainer = Trainer(
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
            use_cpu=inner.device.type == "cpu",
            logging_steps=1,
            save_steps=save_every,
            save_total_limit=1,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": list(prompts), "number": list(range(len(prompts)))}),
        processing_class=tokenizer,
        callbacks=[_Reporter(recipe.n_steps, out, inner, evaluate, evaluate_every)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state)) if state.is_dir() else None)


class _Reporter(TrainerCallback):
    """Reports every step, with held-out accuracy every few steps and after the last."""

    def __init__(
        self,
        n_steps: int,
        out: Path,
        model: PreTrainedModel,
        evaluate: Callable[[PreTrainedModel], pd.DataFrame],
        evaluate_every: int,
    ) -> None:
        self.n_steps, self.out, self.model = n_steps, out, model
        self.evaluate, self.evaluate_every = evaluate, evaluate_every

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress = Progress(self.out, self.n_steps, state.global_step)

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if "reward" not in logs:  # the summary at the end
            return
        step, scores = state.global_step, {"think": "", "no_think": ""}
        if step % self.evaluate_every == 0 or step == self.n_steps:
            table = self.evaluate(self.model.eval())
            self.model.train()
            table.assign(step=step).to_csv(self.out / f"accuracy_{step:05d}.csv", index=False)
            scores |= {mode: f"{right:.3f}" for mode, right in table.groupby("mode")["right"].mean().items()}
        facts = {
            "reward": f"{logs['reward']:.4f}",
            "reward_std": f"{logs['reward_std']:.4f}",
            "length": f"{logs['completions/mean_length']:.4f}",
        }
        self.progress.report(step, round(logs["num_tokens"]), facts, scores)
