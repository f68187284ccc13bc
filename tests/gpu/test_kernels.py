"""The Triton kernels on a GPU, or under the interpreter: the same numbers as the torch form on the CPU."""

import math
from typing import Any

import pytest
import torch
from policy_steps import ADAPTIVE

from normprobe.policies import ops
from normprobe.policies.histograms import learn
from normprobe.policies.rows import norms

CASES = [
    *((dtype, 33, 77) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    (torch.float32, 0, 77),
    (torch.bfloat16, 1, 1),
    (torch.float32, 1, 128),
]
"""Dtypes, numbers of rows and widths."""
WIDE = (torch.bfloat16, 33, 4096)
cases = pytest.mark.parametrize("dtype, rows, d", [*CASES, WIDE])


def states(rows: int, d: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Random rows of many norms; of 33, some hold NaN, infinity, zeros, and squares that overflow float32."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, d, generator=generator) * torch.randn(rows, 1, generator=generator).exp()
    if rows > 4 and d > 4:
        hidden[0, 1], hidden[1, 2], hidden[2], hidden[3] = math.nan, math.inf, 0.0, 1e30
    return hidden.to(dtype)


def mask(rows: int, share: float, seed: int = 1) -> torch.Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < share


def thresholds(rows: int, d: int) -> torch.Tensor:
    """About half of the states are above."""
    tau = math.sqrt(d) * torch.rand(rows, generator=torch.Generator().manual_seed(2)).add(0.2)
    if rows > 6:
        tau[5] = math.inf
    return tau


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu().view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


def agree(found: object, expected: object, dtype: torch.dtype = torch.float32, d: int = 1) -> None:
    """Equal up to the rounding of numbers of this dtype, or of sums of d of them; masks and counts exactly."""
    rtol = torch.finfo(dtype).eps * max(2.0, math.sqrt(d) / 4)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-6, equal_nan=True, check_device=False)


@cases
@pytest.mark.parametrize("blow_up", [1.5, 9.0, None])
def test_peaks(
    ops_triton: Any, device: torch.device, dtype: torch.dtype, rows: int, d: int, blow_up: float | None
) -> None:
    hidden, tau, eligible = states(rows, d, dtype), thresholds(rows, d), mask(rows, 0.8)
    expected = ops.peaks(hidden, tau, eligible, blow_up)
    there = hidden.to(device), tau.to(device), eligible.to(device)
    found = ops_triton.peaks(*there, blow_up)
    agree(found, expected, d=d)
    assert rows < 33 or 2 < int(expected[1].sum()) < 30
    one = torch.full((), 1.5)  # of all rows: a stride of 0, as a fixed threshold has
    agree(
        ops_triton.peaks(there[0], one.to(device).expand(rows), there[2], blow_up),
        ops.peaks(hidden, one.expand(rows), eligible, blow_up),
        d=d,
    )
    for i in range(0, rows, 8):
        alone = ops_triton.peaks(*(tensor[i : i + 1].clone() for tensor in there), blow_up)
        assert torch.equal(bits(alone[0]), bits(found[0][i : i + 1]))


@cases
@pytest.mark.parametrize("damping", [0.0, 0.3, 0.5, 1.0])
def test_keep(
    ops_triton: Any, device: torch.device, dtype: torch.dtype, rows: int, d: int, damping: float
) -> None:
    hidden, tau = states(rows, d, dtype), thresholds(rows, d)
    out = (1.4 * hidden.float() + 0.2 * states(rows, d, dtype, 3).float()).to(dtype)
    out = torch.where(mask(rows, 0.1, 4)[:, None], torch.nan, out)
    norm, active = ops.peaks(hidden, tau, mask(rows, 0.8), 9.0)
    how = {"damping": damping, "growth": 0.0, "blow_up": 9.0}
    expected = ops.keep(hidden, out, norm, tau, active, **how)
    there = [tensor.to(device) for tensor in (hidden, out, norm, tau, active)]
    there[2], _ = ops_triton.peaks(
        there[0], there[3], there[4]
    )  # sums of another order; growth by 0 is to be exact
    found = ops_triton.keep(*there, **how)
    agree(found, expected, dtype)
    kept = found[2].cpu()
    assert torch.equal(bits(found[0])[~kept], bits(hidden)[~kept])
    if damping in (0.0, 1.0):
        exact = hidden if damping == 0 else out
        assert torch.equal(found[0].cpu()[kept], exact[kept])
    assert rows < 33 or 3 < int(kept.sum()) < int(active.sum())
    for i in range(0, rows, 8):
        alone = ops_triton.keep(*(tensor[i : i + 1].clone() for tensor in there), **how)
        assert torch.equal(bits(alone[0]), bits(found[0][i : i + 1]))


def test_edges(ops_triton: Any, device: torch.device) -> None:
    """At τ, at b·τ and at just enough growth, in numbers that float32 holds: the window (8, 16), a quarter."""
    norm = torch.tensor([8.0, 16.0, 7.0, 17.0, 10.0], device=device)
    hidden = torch.nn.functional.pad(norm[:, None], (2, 3))
    tau, yes = torch.full_like(norm, 8.0), torch.ones(5, dtype=torch.bool, device=device)
    found, active = ops_triton.peaks(hidden, tau, yes, 2.0)
    assert found.tolist() == norm.tolist()
    assert active.tolist() == [False, False, False, False, True]
    assert ops_triton.peaks(hidden, tau, yes)[1].tolist() == [False, True, False, True, True]
    factor = torch.tensor([1.25, 1.1875, 1.6, 0.5, math.nan], device=device)
    ten = torch.nn.functional.pad(torch.full((5, 1), 10.0, device=device), (2, 3))
    new, norm, kept = ops_triton.keep(
        ten, ten * factor[:, None], ten.sum(dim=1), tau, yes, damping=1.0, growth=0.25, blow_up=2.0
    )
    assert kept.tolist() == [True, False, False, False, False]
    assert new[:, 2].tolist() == norm.tolist() == [12.5, 10.0, 10.0, 10.0, 10.0]


@cases
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_inject(
    ops_triton: Any, device: torch.device, dtype: torch.dtype, rows: int, d: int, beta: float
) -> None:
    n_slots, n_entries = 7, 5
    bank = states((n_slots + 1) * n_entries, d, dtype, 5).view(n_slots + 1, n_entries, d)
    held = norms(bank.flatten(0, 1)).view(n_slots + 1, n_entries)
    held[1], held[2, 2:], held[4, 1] = -math.inf, -math.inf, math.inf
    bank[5, 3] = bank[5, 1]  # a tie
    held[5, 3] = held[5, 1]
    hidden, slot = states(rows, d, dtype), torch.arange(rows) % (n_slots + 1) - 1
    may = (slot >= 0) & mask(rows, 0.8)
    norm, how = norms(hidden), {"min_cosine": 0.0, "beta": beta}
    expected = ops.inject(hidden, norm, slot, may, bank, held, **how)
    there = [tensor.to(device) for tensor in (hidden, norm, slot, may, bank, held)]
    found = ops_triton.inject(*there, **how)
    agree(found, expected, dtype)
    acts = found[1].cpu()
    assert rows < 33 or 3 < int(acts.sum()) < int(may.sum())
    assert torch.equal(bits(found[0])[~acts], bits(hidden)[~acts])
    for i in range(0, rows, 8):
        alone = ops_triton.inject(*(t[i : i + 1].clone() for t in there[:4]), *there[4:], **how)
        assert torch.equal(bits(alone[0]), bits(found[0][i : i + 1]))


@pytest.mark.parametrize("rows, slots", [(1, torch.int64), (9, torch.int32), (33, torch.int64)])
def test_learn(ops_triton: Any, device: torch.device, rows: int, slots: torch.dtype) -> None:
    """Passes of either layer or both, rows in any order, with padding, prompts, NaN, zero and infinite norms."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ADAPTIVE.start(rows, device), ADAPTIVE.start(rows, torch.device("cpu"))
    for step in range(6):
        place = [None, torch.tensor([1])][step % 2]
        slot = torch.randperm(rows, generator=generator).to(slots)
        norm = 35 * torch.randn(2 if place is None else 1, rows, generator=generator).mul(0.5).exp()
        if rows > 8:
            slot[1], norm[:, 2], norm[:, 3], norm[:, 4], norm[:, 5] = -1, math.nan, math.inf, 0.0, 1e-30
        eligible = torch.rand(rows, generator=generator) < 0.8
        learn(theirs, place, slot, norm, eligible)
        there = None if place is None else place.to(device)
        ops_triton.learn(ours, there, *(tensor.to(device) for tensor in (slot, norm, eligible)))
        # The last slot and column of the torch form hold what does not count.
        assert torch.equal(ours.counts[:, :-1, :-1].cpu(), theirs.counts[:, :-1, :-1])
        torch.testing.assert_close(ours.taus[:, :-1].cpu(), theirs.taus[:, :-1], rtol=1e-5, atol=0)
    assert int(theirs.counts[:, :-1, :-1].sum()) == int(ours.counts.sum()) > 3 * rows
