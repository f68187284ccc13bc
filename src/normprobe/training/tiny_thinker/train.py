"""Train tiny-thinker; resumes after a kill: `python -m normprobe.training.tiny_thinker.train`."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen3ForCausalLM
from tyro.conf import arg

from normprobe.console import parse, run_main
from normprobe.models.initialise import initialise
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.training.checkpoint import load_state, save_model, save_state
from normprobe.training.muon import Muon
from normprobe.training.progress import Progress, fix_recipe
from normprobe.training.reading_matter import steps
from normprobe.training.tiny_thinker.accuracy import accuracy
from normprobe.training.tiny_thinker.recipe import Recipe, Sequence, model_config, pool


def untrained_model(seed: int) -> Qwen3ForCausalLM:
    """The exact random initialisation from which the recipe starts; also the control called the untrained twin."""
    model = Qwen3ForCausalLM(model_config())
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def optimisers(model: Qwen3ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Of the matrices inside the blocks Muon (or what the recipe has), AdamW of embedding and norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if not (p.ndim == 2 and "embed" not in name)]
    adamw = partial(
        torch.optim.AdamW, lr=recipe.adamw_lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.95)
    )
    if recipe.optimiser == "adamw":
        return [adamw(matrices), adamw(others)]
    muon = Muon if recipe.muon_dtype == "float32" else torch.optim.Muon
    return [muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay), adamw(others)]


def collate(
    batch: list[Sequence], device: torch.device
) -> tuple[Int[torch.Tensor, "sequence token"], Float[torch.Tensor, "sequence token"]]:
    """Pad on the right with token 0 and weight 0. Causal attention keeps padding from being read."""
    ids = pad_sequence([torch.tensor(sequence.ids) for sequence in batch], batch_first=True)
    weights = pad_sequence([torch.tensor(sequence.weights) for sequence in batch], batch_first=True)
    return ids.to(device), weights.to(device)


def train_step(
    body: Callable[..., Any],
    model: Qwen3ForCausalLM,
    optimisers: list[torch.optim.Optimizer],
    microbatches: list[list[Sequence]],
    recipe: Recipe,
    step: int,
) -> float:
    """One update from several microbatches; returns the weighted mean loss in nats."""
    total = sum(sum(sequence.weights) for batch in microbatches for sequence in batch)
    loss_sum = 0.0
    for batch in microbatches:
        ids, weights = collate(batch, model.device)
        hidden = body(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = rearrange(model.lm_head(hidden), "sequence token word -> (sequence token) word")
        losses = functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        if recipe.z_loss:
            losses = losses + recipe.z_loss * logits.logsumexp(dim=-1).square()
        loss = (losses * weights[:, 1:].flatten()).sum() / total
        loss.backward()
        loss_sum += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    factor = recipe.learning_rate_factor(step)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = optimiser.defaults["lr"] * factor
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return loss_sum


def train(
    recipe: Recipe, out: Path, *, device: str, compile: bool, evaluate_every: int, save_every: int
) -> Path:
    """Run or resume the recipe in `out`; returns the directory of the final checkpoint (`out/final`).

    `out/early` is the early checkpoint, `out/warmup` the one that training by rewards starts from, `out/log.csv` the
    progress: loss in nats, greedy accuracy on 128 held-out problems.
    Errors: NormprobeError if `out` holds a run of another recipe.
    """
    fix_recipe(out, asdict(recipe))
    if (out / "final").exists():
        return out / "final"

    model = untrained_model(recipe.seed)
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]  typed as unbound
    tokenizer = build_tokenizer()
    optimiser_list = optimisers(model, recipe)
    first, tokens = load_state(out / "state.safetensors", model, optimiser_list)
    body = torch.compile(model.model, dynamic=True) if compile else model.model
    held_out = make_problems(128, seed=12345)
    progress = Progress(out, recipe.n_steps, first)
    reading = steps(partial(pool, recipe), first, recipe.n_steps, recipe.steps_per_pool, model.device)
    for step, microbatches in reading:
        loss = train_step(body, model, optimiser_list, microbatches, recipe, step)
        tokens += sum(len(sequence.ids) for batch in microbatches for sequence in batch)
        done = step + 1
        for name, kept in (("early", recipe.early_step), ("warmup", recipe.warmup_step)):
            if done == kept:
                save_model(out / name, model, tokenizer)
        scores = dict.fromkeys(("think", "no_think", "filler"), "")
        if done % evaluate_every == 0 or done == recipe.n_steps:
            scores = {mode: f"{accuracy(model, tokenizer, held_out, mode).mean():.3f}" for mode in scores}
        if done % 20 == 0:
            factor = recipe.learning_rate_factor(step)
            facts = {"loss": f"{loss:.4f}", "learning_rate_factor": f"{factor:.3f}"}
            progress.report(done, tokens, facts, scores)
        if done % save_every == 0:
            save_state(out / "state.safetensors", model, optimiser_list, done, tokens)
    save_model(out / "final", model, tokenizer)
    return out / "final"


@dataclass(frozen=True)
class TrainCommand:
    """Train the bundled model tiny-thinker from its recipe; the same command resumes a run that was stopped."""

    recipe: Annotated[Recipe, arg(name="")] = field(default_factory=Recipe)
    out: Path = Path("runs/tiny-thinker-training")
    """directory of the training run"""
    device: str = "cpu"
    """cpu or cuda"""
    evaluate_every: int = 200
    """steps between accuracy checks"""
    save_every: int = 100
    """steps between resumable states"""
    compile: bool = True
    """torch.compile, which needs a C++ compiler"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.training.tiny_thinker.train` and `normprobe train-testbed`."""
    options = vars(parse(TrainCommand, argv, "train-testbed"))
    print(f"trained: {train(options.pop('recipe'), **options)}")


if __name__ == "__main__":
    sys.exit(run_main(main))
