"""Checkpoints of a training run: a model directory that Transformers loads, and the state from which training resumes.

Both are written under another name and renamed, so that a kill leaves the last one whole. Optimiser state is kept as
safetensors.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast


def _replace(partial: Path, target: Path) -> None:
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def save_model(target: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write weights, configuration, tokenizer and chat template as a directory for `from_pretrained`."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    _replace(partial, target)


def save_state(
    target: Path, model: PreTrainedModel, optimisers: list[torch.optim.Optimizer], step: int, tokens: int
) -> None:
    """Write everything that training needs to go on after `step` steps and `tokens` tokens."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: p.detach() for name, p in model.named_parameters()}, partial / "parameters.safetensors")
    state = {
        f"{i}/{parameter}/{key}": torch.as_tensor(value)
        for i, optimiser in enumerate(optimisers)
        for parameter, values in optimiser.state_dict()["state"].items()
        for key, value in values.items()
    }
    save_file(state, partial / "optimisers.safetensors")
    save_file({"step": torch.tensor(step), "tokens": torch.tensor(tokens)}, partial / "progress.safetensors")
    _replace(partial, target)


def load_state(
    source: Path, model: PreTrainedModel, optimisers: list[torch.optim.Optimizer]
) -> tuple[int, int]:
    """Restore what `save_state` wrote, in place; returns (steps, tokens) done, (0, 0) if there is no state yet."""
    if not source.exists():
        return 0, 0
    parameters = load_file(source / "parameters.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameters[name])
    flat = load_file(source / "optimisers.safetensors")
    for i, optimiser in enumerate(optimisers):
        whole = optimiser.state_dict()
        whole["state"] = {}
        for name, value in flat.items():
            which, parameter, key = name.split("/")
            if int(which) == i:
                whole["state"].setdefault(int(parameter), {})[key] = value
        optimiser.load_state_dict(whole)
    progress = load_file(source / "progress.safetensors")
    return int(progress["step"]), int(progress["tokens"])
