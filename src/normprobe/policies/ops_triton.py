"""The functions of `normprobe.policies.ops` as Triton kernels: one launch each, one program per row. Types are there.

A program reads its own row and nothing else, in blocks whose size depends on the width alone: what a row gets is the
same to the bit whatever the other rows are (of a width that fills 16 bytes: a load is as wide as a row is aligned).
Imported only where Triton is; under Triton's interpreter (TRITON_INTERPRET=1) the kernels run on CPU tensors.
"""

from __future__ import annotations

from typing import no_type_check  # in a kernel an annotation says what is a constant, and nothing about types

import torch
import triton
import triton.language as tl

from normprobe.layer_profile import SMALLEST_IQR

_UNFUSED = {"enable_fp_fusion": False}
"""a·b + c is rounded twice, as in torch, whatever Triton does by default."""


@triton.jit
@no_type_check
def _length(state):
    """‖state‖₂; its rounding is that of IEEE, as torch's."""
    return tl.sqrt_rn(tl.sum(state * state))


@triton.jit
@no_type_check
def _lerp(start, end, weight):
    """As torch.lerp: exactly `start` at weight 0, exactly `end` at 1."""
    step = end - start
    return tl.where(weight < 0.5, start + weight * step, end - (1 - weight) * step)


@triton.jit
@no_type_check
def _peaks(
    hidden, tau, eligible, norm, active, blow_up, tau_stride, d, BOUNDED: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    state = tl.load(hidden + row * d + column, mask=column < d, other=0.0).to(tl.float32)
    length, low = _length(state), tl.load(tau + row * tau_stride)
    inside = (tl.load(eligible + row) != 0) & (length > low)
    if BOUNDED:
        inside = inside & (length < blow_up * low)
    tl.store(norm + row, length)
    tl.store(active + row, inside)


def peaks(hidden, tau, eligible, blow_up=None):
    rows, d = hidden.shape
    given = (hidden.contiguous(), tau, eligible)
    found = hidden.new_empty(rows, dtype=torch.float32), torch.empty_like(eligible)
    settings = (float(blow_up or 0), tau.stride(0), d)
    with torch.cuda.device(hidden.get_device()):
        _peaks[(rows,)](*given, *found, *settings, BOUNDED=blow_up is not None, **_blocks(d))
    return found


@triton.jit
@no_type_check
def _keep(
    hidden,
    out,
    norm,
    tau,
    active,
    new,
    new_norm,
    kept,
    damping,
    growth,
    blow_up,
    tau_stride,
    d,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    at, inside = row * d + column, column < d
    state = tl.load(hidden + at, mask=inside, other=0.0)
    after = tl.load(out + at, mask=inside, other=0.0)
    mixed = _lerp(state.to(tl.float32), after.to(tl.float32), damping).to(state.dtype)
    before, low, grown = tl.load(norm + row), tl.load(tau + row * tau_stride), _length(mixed.to(tl.float32))
    keeps = tl.load(active + row) != 0
    keeps = keeps & (grown >= growth * before) & (grown > low) & (grown < blow_up * low)
    tl.store(new + at, tl.where(keeps, mixed, state), mask=inside)
    tl.store(new_norm + row, tl.where(keeps, grown, before))
    tl.store(kept + row, keeps)


def keep(hidden, out, norm, tau, active, *, damping, growth, blow_up):
    rows, d = hidden.shape
    hidden, out = hidden.contiguous(), out.contiguous()
    kept = torch.empty_like(hidden), torch.empty_like(norm), torch.empty_like(active)
    settings = (float(damping), float(1 + growth), float(blow_up), tau.stride(0), d)
    with torch.cuda.device(hidden.get_device()):
        _keep[(rows,)](hidden, out, norm, tau, active, *kept, *settings, **_blocks(d))
    return kept


@triton.jit
@no_type_check
def _inject(
    hidden, norm, slot, may, bank, bank_norm, new, acts, min_cosine, beta, n_entries, d, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    first = tl.load(slot + row).to(tl.int64) * n_entries
    state = tl.load(hidden + row * d + column, mask=inside, other=0.0)
    wide, length = state.to(tl.float32), tl.load(norm + row)
    best, chosen = tl.full((), -float("inf"), tl.float32), first
    # Only a row that may act reads its bank.
    for entry in range(first, first + tl.where(tl.load(may + row) != 0, n_entries, 0)):
        size = tl.load(bank_norm + entry)
        vector = tl.load(bank + entry * d + column, mask=inside, other=0.0).to(tl.float32)
        scale = size * length
        cosine = tl.div_rn(tl.sum(vector * wide), tl.where(scale < 1e-12, 1e-12, scale))
        # The first of the largest; a NaN counts as larger than all, as it does to torch.max.
        better = (size > -float("inf")) & ((cosine > best) | ((cosine != cosine) & (best == best)))
        best, chosen = tl.where(better, cosine, best), tl.where(better, entry, chosen)
    steers = best >= min_cosine
    if steers:
        vector = tl.load(bank + chosen * d + column, mask=inside, other=0.0).to(tl.float32)
        state = _lerp(wide, vector, beta).to(state.dtype)
    tl.store(new + row * d + column, state, mask=inside)
    tl.store(acts + row, steers)


def inject(hidden, norm, slot, may, bank, bank_norm, *, min_cosine, beta):
    rows, d = hidden.shape
    hidden = hidden.contiguous()
    steered = torch.empty_like(hidden), torch.empty_like(may)
    settings = (float(min_cosine), float(beta), bank.shape[1], d)
    with torch.cuda.device(hidden.get_device()):
        _inject[(rows,)](
            hidden, norm, slot.contiguous(), may, bank, bank_norm, *steered, *settings, **_blocks(d)
        )
    return steered


@triton.jit
@no_type_check
def _quantile(reached, level, BINS: tl.constexpr):
    """Where the distribution reaches a level, in bins from the lowest edge; linear within a bin."""
    bin = tl.arange(0, BINS)
    target = level * tl.sum(tl.where(bin == BINS - 1, reached, 0.0))
    lower = tl.sum((reached < target).to(tl.int32))
    at_lower = tl.sum(tl.where(bin == lower - 1, reached, 0.0))
    at_upper = tl.sum(tl.where(bin == lower, reached, 0.0))
    return lower + tl.div_rn(target - at_lower, at_upper - at_lower)


@triton.jit(do_not_specialize=["n_rows"])
@no_type_check
def _learn(
    counts,
    tau,
    low,
    width,
    edges,
    prior,
    place,
    slot,
    norm,
    eligible,
    k,
    smallest_iqr,
    n_rows,
    n_slots,
    BINS: tl.constexpr,
):
    at = tl.program_id(1) * n_rows + tl.program_id(0)
    length, request = tl.load(norm + at), tl.load(slot + tl.program_id(0))
    if (tl.load(eligible + tl.program_id(0)) != 0) & (request >= 0) & (length == length):
        layer = tl.load(place + tl.program_id(1))
        cell = layer * n_slots + request
        lowest, one_bin = tl.load(low + layer), tl.load(width + layer)
        bin = tl.arange(0, BINS)
        hit = bin + 1 == tl.sum((tl.load(edges + layer * (BINS + 1) + bin) < length).to(tl.int32))
        column = cell * (BINS + 2) + 1 + bin
        count = tl.load(counts + column) + hit.to(tl.float32)
        tl.store(counts + column, count, mask=hit)
        reached = tl.cumsum(count) + tl.load(prior + layer * (BINS + 1) + 1 + bin)
        first = tl.exp(lowest + _quantile(reached, 0.25, BINS) * one_bin)
        third = tl.exp(lowest + _quantile(reached, 0.75, BINS) * one_bin)
        tl.store(tau + cell, third + k * tl.maximum(third - first, smallest_iqr))


def learn(histograms, place, slot, norm, eligible):
    (asked, rows), h = norm.shape, histograms
    state = (h.counts, h.taus, h.low, h.width, h.edges, h.prior, h.every if place is None else place)
    settings = (float(h.k), SMALLEST_IQR, rows, h.taus.shape[1])
    with torch.cuda.device(norm.get_device()):
        _learn[(rows, asked)](*state, slot, norm, eligible, *settings, BINS=h.counts.shape[2] - 2, **_UNFUSED)


def _blocks(d: int) -> dict[str, int]:
    """A row in one block of a power of two, and the warps that hold it."""
    block = 1 << (d - 1).bit_length()
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), 16), **_UNFUSED}
