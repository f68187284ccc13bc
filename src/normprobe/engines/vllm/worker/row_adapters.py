"""LoRA in a pass over some of a batch's tokens: each keeps the adapter of its request.

vLLM says for a whole batch which token has which adapter; its layers read that in the order of the tokens they get.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int


@contextmanager
def adapters_of(runner: Any, tokens: Int[torch.Tensor, " chosen"]) -> Iterator[None]:
    """Within, the layers of the model get these tokens of the batch, in this order. Without LoRA nothing is done."""
    if not hasattr(runner, "lora_manager"):
        yield
        return
    manager = runner.lora_manager._adapter_manager
    batch = manager._last_mapping
    chosen = tuple(batch.index_mapping[token] for token in tokens.tolist())
    manager.set_adapter_mapping(replace(batch, index_mapping=chosen, prompt_mapping=chosen))
    try:
        yield
    finally:
        manager.set_adapter_mapping(batch)
