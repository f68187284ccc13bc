"""The check that policies can act in a model, before any request: by what its blocks do, not by its name.

Each layer is tried once, in a pass of no request. What is refused would fail in the middle of serving, or worse: blocks
that return the whole state with a stale half look like those that return two halves, and every norm would be wrong.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import nn
from vllm.model_executor.layers.attention import Attention, MLAAttention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

from normprobe.engines.vllm.worker.rerun import BlockRerun
from normprobe.engines.vllm.worker.residual_stream import Site
from normprobe.errors import NormprobeError

ROUNDING = 0.1
"""A share of the state's norm: far above the rounding of 8-bit weights, far below the effect of a missing half."""


def check_parts(block: nn.Module, layer: int) -> None:
    """Check the parts of a block.

    Raises NormprobeError for a block that has no argument `hidden_states`, or one that keeps a state of its own
    (recurrent layers, indexers), which an extra pass would advance.
    """
    if "hidden_states" not in inspect.signature(block.forward).parameters:
        raise _unfit(layer, "that takes hidden_states", f"{type(block).__name__}, which does not")
    others = {
        type(module).__name__
        for module in block.modules()
        if isinstance(module, AttentionLayerBase) and not isinstance(module, Attention | MLAAttention)
    }
    if others:
        raise _unfit(layer, "of attention only", ", ".join(sorted(others)))


def check_states(site: Site, rerun: BlockRerun) -> None:
    """Try an extra pass of a block on a random state. site: its output. rerun: of one of its rows.

    Raises NormprobeError for a block that returns two tensors whose sum is not the state: given both, it computes
    something else than given their sum.
    """
    like = site.halves[0]
    draw = torch.Generator().manual_seed(rerun.layer)  # the same on all ranks
    # Quarters: their sums are exact in every dtype, or a router might choose other experts.
    one, other = (torch.randint(-8, 9, (2, 1, like.shape[1]), generator=draw) / 4).to(like.device, like.dtype)
    row = np.zeros(1, np.int64), torch.zeros(1, dtype=torch.int64, device=like.device)
    whole = rerun.once(*row, one + other).float()
    if len(site.halves) == 1:
        return
    # Clones, for fused norms write into what they are given.
    halves = rerun.once(*row, one.clone(), other.clone()).float()
    if not (whole - halves).norm() <= ROUNDING * whole.norm():
        raise _unfit(rerun.layer, "that returns two halves of its state", "a state beside something else")


def _unfit(layer: int, expected: str, got: str) -> NormprobeError:
    return NormprobeError(
        f"expected a block {expected} at layer {layer}, got {got}; "
        "no policy can act in this architecture: unset NORMPROBE"
    )
