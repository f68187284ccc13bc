"""Continuations of one text: where every prompt of a batch begins the longest, its states are computed once for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from normprobe.models.model import OpenModel


def read_shared(opened: OpenModel, prompts: Sequence[Sequence[int]], cached: dict[str, Any]) -> bool:
    """Read the longest prompt once, if all others begin it, and give each its part of the states, padded on the left.

    cached: the keyword of the model's forward pass with its empty cache, which then holds all tokens of every prompt
    but the last. False, and nothing is read, for prompts that do not share their beginning or a model whose layers do
    not all keep the states of all tokens (sliding windows, recurrent states).
    """
    (cache,) = cached.values()
    longest = max(prompts, key=len)
    begin_alike = all(list(prompt) == list(longest[: len(prompt)]) for prompt in prompts)
    if len(prompts) < 2 or len(longest) < 2 or not begin_alike or not _keeps_all(cache):
        return False
    text = torch.tensor([longest[:-1]], device=opened.device)
    opened.model(input_ids=text, use_cache=True, logits_to_keep=1, **cached)
    lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=opened.device)
    # Rotary angles are in the keys already, so that a state may move to another column.
    column = torch.arange(text.shape[1], device=opened.device)
    source = (column - (text.shape[1] - lengths)[:, None]).clamp(min=0)
    for layer in cache.layers:
        if layer.is_initialized:  # a layer that borrows another's states has none of its own
            at = source.to(layer.keys.device)
            layer.keys, layer.values = (
                states[0][:, at].transpose(0, 1) for states in (layer.keys, layer.values)
            )
    return True


def _keeps_all(cache: DynamicCache) -> bool:
    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)
