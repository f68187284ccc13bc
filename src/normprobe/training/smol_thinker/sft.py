"""Teach SmolLM2 to think by demonstrations: `python -m normprobe.training.smol_thinker.sft`. Resumes after a kill."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from normprobe.console import parse, run_main
from normprobe.models.open import DTYPES
from normprobe.training.checkpoint import load_state, save_state
from normprobe.training.grpo import old_names
from normprobe.training.progress import Progress, fix_recipe
from normprobe.training.reading_matter import steps
from normprobe.training.smol_thinker.accuracy import accuracy, held_out
from normprobe.training.smol_thinker.dialogue import Dialogue, collate
from normprobe.training.smol_thinker.recipe import SftRecipe, pool
from normprobe.training.smol_thinker.smollm2 import BASE, base_model, published_tokenizer, thinking_tokenizer


def adapted(base: PreTrainedModel, recipe: SftRecipe) -> Any:
    """The base with new adapters (LoRA, arXiv 2106.09685) on all linear layers, in float32, which alone are trained."""
    from peft import LoraConfig, get_peft_model

    # peft draws from the global generator: nothing outside sees the seed.
    with torch.random.fork_rng(), old_names():
        torch.manual_seed(recipe.seed)
        config = LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        return get_peft_model(base, config)


def batch_loss(model: PreTrainedModel, batch: list[Dialogue]) -> torch.Tensor:
    """The sum of the losses of a microbatch's predicted tokens, in nats. Logits are computed where they are needed."""
    ids, positions, reads, predicted = collate(batch, model.device)
    hidden: Any = model.get_decoder()(
        input_ids=ids, position_ids=positions, attention_mask=reads, use_cache=False
    )
    logits = model.lm_head(hidden.last_hidden_state[:, :-1][predicted[:, 1:]])
    return functional.cross_entropy(logits.float(), ids[predicted], reduction="sum")


def train_step(
    model: PreTrainedModel,
    optimiser: torch.optim.Optimizer,
    step: list[list[Dialogue]],
    lr: float,
    clip: float,
) -> float:
    """One update from several microbatches; returns the mean loss of a predicted token in nats."""
    total = sum(each.n_predicted for batch in step for each in batch)
    loss_sum = 0.0
    for batch in step:
        loss = batch_loss(model, batch) / total
        loss.backward()
        loss_sum += loss.item()
    trained = [p for p in model.parameters() if p.requires_grad]
    nn.utils.clip_grad_norm_(trained, clip)
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss_sum


def save_adapter(target: Path, peft_model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the adapters in bfloat16, with tokenizer and chat template, as a folder that `open_model` opens.

    It names the base as normprobe does, not by the place where it lies on this machine.
    """
    partial = target.with_name(target.name + ".partial")
    for folder in (partial, target):
        shutil.rmtree(folder, ignore_errors=True)
    from peft import get_peft_model_state_dict

    state = {
        name: tensor.bfloat16()
        for name, tensor in get_peft_model_state_dict(peft_model, save_embedding_layers=False).items()
    }
    config = peft_model.peft_config["default"]
    config.base_model_name_or_path, config.target_modules = BASE, sorted(config.target_modules)
    peft_model.save_pretrained(partial, state_dict=state, save_embedding_layers=False)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def train(
    recipe: SftRecipe,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    *,
    evaluate_every: int,
    save_every: int,
) -> Path:
    """Run or resume the recipe in `out`; returns the folder of the final adapters (`out/final`).

    base: weights that are not trained, in whatever dtype; `tokenizer` marks thoughts as `thinking_tokenizer` has it.

    `out/warmup` is the checkpoint from which reinforcement learning starts, `out/log.csv` the progress: loss in nats,
    greedy accuracy on held-out problems of all families and levels.
    Raises NormprobeError if `out` holds a run of another recipe.
    """
    fix_recipe(out, asdict(recipe) | {"dtype": str(base.dtype).removeprefix("torch.")})
    if (out / "final").exists():
        return out / "final"
    wrapped = adapted(base, recipe)
    model = wrapped.get_base_model()
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=recipe.lr, weight_decay=0.0, betas=(0.9, 0.95)
    )
    first, tokens = load_state(out / "state.safetensors", model, [optimiser])
    problems = held_out(2, seed=0)
    progress = Progress(out, recipe.n_steps, first)
    reading = partial(pool, recipe, tokenizer)
    for number, step in steps(reading, first, recipe.n_steps, recipe.steps_per_pool, base.device):
        factor = recipe.learning_rate_factor(number)
        model.train()
        loss = train_step(model, optimiser, step, recipe.lr * factor, recipe.clip_norm)
        tokens += sum(len(each.ids) for batch in step for each in batch)
        done = number + 1
        scores = {"think": "", "no_think": ""}
        if done % evaluate_every == 0:
            table = accuracy(model.eval(), tokenizer, problems)
            table.assign(step=done).to_csv(out / f"accuracy_{done:05d}.csv", index=False)
            scores |= {mode: f"{right:.3f}" for mode, right in table.groupby("mode")["right"].mean().items()}
        facts = {"loss": f"{loss:.4f}", "learning_rate_factor": f"{factor:.3f}"}
        progress.report(done, tokens, facts, scores)
        if done == recipe.warmup_step:
            save_adapter(out / "warmup", wrapped, tokenizer)
        if done % save_every == 0:
            save_state(out / "state.safetensors", model, [optimiser], done, tokens)
    save_adapter(out / "final", wrapped, tokenizer)
    return out / "final"


@dataclass(frozen=True)
class SftCommand:
    """Teach SmolLM2-135M-Instruct to think by demonstrations; the same command resumes a run that was stopped."""

    out: Path = Path("runs/smol-thinker-sft")
    """directory of the training run"""
    device: str = "cpu"
    """cpu or cuda"""
    dtype: str = "float32"
    """of the base's weights: float32, or bfloat16 where the processor has instructions for it"""
    steps: int = SftRecipe.n_steps
    """optimiser steps (the recipe's own by default)"""
    seed: int = SftRecipe.seed
    """seed of the adapters and the problems"""
    evaluate_every: int = 50
    """steps between accuracy checks"""
    save_every: int = 10
    """steps between resumable states"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.training.smol_thinker.sft`."""
    options = asdict(parse(SftCommand, argv, "train-smol-thinker"))
    recipe = SftRecipe(seed=options.pop("seed"), n_steps=options.pop("steps"))
    out, device, dtype = options.pop("out"), torch.device(options.pop("device")), DTYPES[options.pop("dtype")]
    tokenizer = thinking_tokenizer(published_tokenizer(), out / "tokenizer")
    print(f"trained: {train(recipe, base_model(dtype, device), tokenizer, out, **options)}")


if __name__ == "__main__":
    sys.exit(run_main(main))
