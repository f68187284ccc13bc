"""Sums over the k active features of each row, in plain torch: the decoder and all gradients of a step.

`fastest` is the module to take: `active_rows_numba` on a CPU where Numba is installed, `active_rows_triton` on a GPU
where Triton is. They compile the same functions.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch.nn.functional import embedding_bag


def fastest(device: torch.device) -> ModuleType:
    """The module whose `largest`, `decoded` and `summed` are fastest on this device."""
    if device.type == "cpu" and importlib.util.find_spec("numba"):
        from normprobe.saes import active_rows_numba

        return active_rows_numba
    if device.type == "cuda" and importlib.util.find_spec("triton"):
        from normprobe.saes import active_rows_triton

        return active_rows_triton
    return sys.modules[__name__]


def largest(
    rows: Float[torch.Tensor, "row d"],
    encoder: Float[torch.Tensor, "feature d"],
    bias: Float[torch.Tensor, " feature"],
    k: int,
    parts: Float[torch.Tensor, "row feature"],
) -> tuple[Float[torch.Tensor, "row k"], Int[torch.Tensor, "row k"]]:
    """The k largest parts encoder·row + bias of each row, in any order, and their features. `parts` is room for all."""
    values, index = torch.addmm(bias, rows, encoder.T, out=parts).topk(k, dim=-1, sorted=False)
    return values, index


def decoded(
    codes: Float[torch.Tensor, "row k"],
    feature: Int[torch.Tensor, "row k"],
    atoms: Float[torch.Tensor, "feature d"],
    centred: Float[torch.Tensor, "row d"],
) -> tuple[Float[torch.Tensor, "row d"], Float[torch.Tensor, "row k"]]:
    """The residual r = Σ_j codes[row, j]·atoms[feature[row, j]] − centred[row], and r·atoms[feature[row, j]]."""
    with torch.enable_grad():
        weights = codes.detach().requires_grad_()
        predicted = embedding_bag(feature, atoms.detach(), per_sample_weights=weights, mode="sum")
    residual = predicted.detach() - centred
    (products,) = torch.autograd.grad(predicted, weights, residual)
    return residual, products


def summed(
    feature: Int[torch.Tensor, "row k"],
    n_features: int,
    weighted: list[tuple[Float[torch.Tensor, "row k"], Float[torch.Tensor, "row d"]]],
) -> list[Float[torch.Tensor, "feature d"]]:
    """For each (weights, batch) the sums over a feature's pairs (row, j) of weights[row, j]·batch[row]."""
    offset, order = by_feature(feature, n_features)
    rows = order // feature.shape[1]
    return [
        embedding_bag(rows, batch, offset[:-1], per_sample_weights=weights.flatten()[order], mode="sum")
        for weights, batch in weighted
    ]


def by_feature(
    feature: Int[torch.Tensor, "row k"], n_features: int
) -> tuple[Int[torch.Tensor, " feature_and_end"], Int[torch.Tensor, " pair"]]:
    """Where each feature's pairs begin, the last entry being their end, and all pairs row·k + j in that order."""
    ordered, order = feature.flatten().int().sort(stable=True)
    bounds = torch.arange(n_features + 1, device=feature.device, dtype=torch.int32)
    return torch.searchsorted(ordered, bounds), order
