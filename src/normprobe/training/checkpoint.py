"""Checkpoints of a training run: a model directory that Transformers loads, and the state from which training resumes.

Both are written under another name and renamed, so that a kill leaves the last state whole.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from normprobe.runs.atomic import atomic_write


def save_model(target: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write weights, configuration, tokenizer and chat template as a directory for `from_pretrained`."""
    partial = target.with_name(target.name + ".partial")
    for folder in (partial, target):
        shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def save_state(
    target: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer], step: int, tokens: int
) -> None:
    """Write everything that training needs to go on after `step` steps and `tokens` tokens, as safetensors.

    Of the parameters those that are trained.
    """
    state = {"step": torch.tensor(step), "tokens": torch.tensor(tokens)}
    state |= {f"parameter/{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    state |= {
        f"{i}/{parameter}/{key}": torch.as_tensor(value)
        for i, optimiser in enumerate(optimisers)
        for parameter, values in optimiser.state_dict()["state"].items()
        for key, value in values.items()
    }
    with atomic_write(target) as unfinished:
        save_file(state, unfinished)


def load_state(source: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> tuple[int, int]:
    """Restore what `save_state` wrote, in place; returns (steps, tokens) done, (0, 0) if there is no state yet."""
    if not source.exists():
        return 0, 0
    state = load_file(source)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state.pop(f"parameter/{name}"))
    steps, tokens = int(state.pop("step")), int(state.pop("tokens"))
    wholes = [optimiser.state_dict() | {"state": {}} for optimiser in optimisers]
    for name, value in state.items():
        which, parameter, key = name.split("/")
        wholes[int(which)]["state"].setdefault(int(parameter), {})[key] = value
    for optimiser, whole in zip(optimisers, wholes, strict=True):
        optimiser.load_state_dict(whole)
    return steps, tokens
