"""The twin of a block: an extra pass of all rows, always computed as part of a compiled model.

It shares everything with its block but what it knows of its cache: as attention that reads the cache of another layer,
it has no write to trace. No shape depends on the data and nothing waits for the device, so it goes into graphs like any
block; which rows use it is the policy's mask.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

from normprobe.engines.vllm.worker.rerun import BlockRerun
from normprobe.policies.rows import RowMask, RowStates


def twins_of(blocks: Sequence[nn.Module], layers: Iterable[int], runner: Any) -> dict[int, nn.Module]:
    """The twins of these layers' blocks, by layer; layers that can have none are left out."""
    if runner.compilation_config.static_all_moe_layers:
        return {}  # vLLM counts such layers as they are called, so none may be called twice
    return {layer: twin_of(blocks[layer]) for layer in layers if _writes_apart(blocks[layer])}


def _writes_apart(block: nn.Module) -> bool:
    """Whether all attention of the block writes the cache in a separate operator, which a twin can leave out."""
    states = [module for module in block.modules() if isinstance(module, AttentionLayerBase)]
    return bool(states) and all(
        isinstance(state, Attention) and not state.attn_backend.forward_includes_kv_cache_update
        for state in states
    )


def twin_of(module: nn.Module) -> nn.Module:
    """A copy of the module that shares all parameters and buffers, without hooks; its attention writes nothing."""
    twin = copy.copy(module)
    twin._forward_hooks = OrderedDict()
    twin._modules = {
        name: child if child is None or not _holds_attention(child) else twin_of(child)
        for name, child in module._modules.items()
    }
    if isinstance(module, Attention):
        twin.kv_sharing_target_layer_name = module.layer_name
    return twin


def _holds_attention(module: nn.Module) -> bool:
    return any(isinstance(part, Attention) for part in module.modules())


@dataclass(frozen=True)
class TwinRerun:
    """`Rerun` (see `normprobe.policies.rows`) whose first pass over the rows the twin has computed already.

    before: the rows' states. after: those states after one more pass. block: for any other states, such as those of a
    second extra pass.
    """

    before: RowStates
    after: RowStates
    block: BlockRerun

    def __call__(self, active: RowMask, states: RowStates) -> RowStates | None:
        return self.after if states is self.before else self.block(active, states)
