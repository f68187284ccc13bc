"""The sums over active features on a GPU, as Triton kernels: the same functions as in `active_rows`.

No kernel adds into what another program adds into, so that a training is the same to the bit when it is repeated.
Imported only where Triton is; under Triton's interpreter (TRITON_INTERPRET=1) the kernels run on CPU tensors.
"""

from __future__ import annotations

from typing import no_type_check  # in a kernel an annotation says what is a constant, and nothing about types

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int

from normprobe.saes.active_rows import by_feature, largest

__all__ = ["decoded", "largest", "summed"]

_PAIRS, _COLUMNS = 4, 1024
"""Pairs of a feature and columns that `_summed` reads at a time: the fastest of twelve that were tried on an H100."""


@triton.jit
@no_type_check
def _decoded(codes, feature, atoms, centred, residual, products, k, d, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    found = -tl.load(centred + row * d + column, mask=inside, other=0.0)
    for j in range(row * k, row * k + k):
        atom = tl.load(atoms + tl.load(feature + j) * d + column, mask=inside, other=0.0)
        found += tl.load(codes + j) * atom
    tl.store(residual + row * d + column, found, mask=inside)
    for j in range(row * k, row * k + k):
        atom = tl.load(atoms + tl.load(feature + j) * d + column, mask=inside, other=0.0)
        tl.store(products + j, tl.sum(found * atom))


def decoded(
    codes: Float[torch.Tensor, "row k"],
    feature: Int[torch.Tensor, "row k"],
    atoms: Float[torch.Tensor, "feature d"],
    centred: Float[torch.Tensor, "row d"],
) -> tuple[Float[torch.Tensor, "row d"], Float[torch.Tensor, "row k"]]:
    """As `active_rows.decoded`."""
    (rows, k), d = codes.shape, atoms.shape[1]
    found = torch.empty_like(centred), torch.empty_like(codes)
    block = triton.next_power_of_2(d)
    sizes = {"BLOCK": block, "num_warps": min(max(block // 512, 1), 8)}
    with torch.cuda.device(codes.get_device()):
        _decoded[(rows,)](codes, feature, atoms, centred, *found, k, d, **sizes)
    return found


@triton.jit
@no_type_check
def _summed(offset, order, weights, batch, out, k, d, PAIRS: tl.constexpr, COLUMNS: tl.constexpr):
    feature = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    begin, end = tl.load(offset + feature), tl.load(offset + feature + 1)
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(begin, end, PAIRS):
        place = first + tl.arange(0, PAIRS)
        pair = tl.load(order + place, mask=place < end, other=0)
        weight = tl.load(weights + pair, mask=place < end, other=0.0)
        inside = (place < end)[:, None] & (column < d)[None, :]
        at = (pair // k)[:, None] * d + column[None, :]
        total += tl.sum(weight[:, None] * tl.load(batch + at, mask=inside, other=0.0), axis=0)
    tl.store(out + feature * d + column, total, mask=column < d)


def summed(
    feature: Int[torch.Tensor, "row k"],
    n_features: int,
    weighted: list[tuple[Float[torch.Tensor, "row k"], Float[torch.Tensor, "row d"]]],
) -> list[Float[torch.Tensor, "feature d"]]:
    """As `active_rows.summed`."""
    offset, order = by_feature(feature, n_features)
    sums = []
    for weights, batch in weighted:
        d = batch.shape[1]
        out = batch.new_empty(n_features, d)
        columns = min(_COLUMNS, triton.next_power_of_2(d))
        grid, sizes = (n_features, triton.cdiv(d, columns)), {"PAIRS": _PAIRS, "COLUMNS": columns}
        with torch.cuda.device(batch.get_device()):
            _summed[grid](offset, order, weights, batch, out, feature.shape[1], d, **sizes)
        sums.append(out)
    return sums
