"""What a decode step does to its rows: norm, threshold, mask and mix, each as one function.

On a GPU with Triton each is one launch (`normprobe.policies.ops_triton`). Elsewhere, and as the reference of the tests,
it is plain torch; the two agree to float32 rounding. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import torch
from jaxtyping import Float, Int, Shaped

from normprobe.policies.rows import RowFloats, RowInts, RowMask, RowStates, norms

_TRITON = find_spec("triton") is not None
P = ParamSpec("P")
T = TypeVar("T")


def _on_gpu(arguments: tuple[object, ...]) -> bool:
    return _TRITON and any(isinstance(argument, torch.Tensor) and argument.is_cuda for argument in arguments)


def with_kernel(reference: Callable[P, T]) -> Callable[P, T]:
    """The kernel of the same name where there is a GPU tensor among the arguments, else the reference."""

    @wraps(reference)
    def operation(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _on_gpu(args):
            return reference(*args, **kwargs)
        from normprobe.policies import ops_triton

        return getattr(ops_triton, reference.__name__)(*args, **kwargs)

    return operation


def rows_of(mask: RowMask) -> Int[torch.Tensor, " chosen"] | slice | None:
    """The rows where the mask is true, None if there are none. All rows where finding out would wait for the device,
    that is on a GPU and in a compiled graph: for work whose results elsewhere are discarded."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return slice(None)
    rows = mask.nonzero()[:, 0]
    return rows if len(rows) else None


def replace_rows(
    values: Shaped[torch.Tensor, "row ..."],
    rows: Int[torch.Tensor, " chosen"] | slice,
    new: Shaped[torch.Tensor, "chosen ..."],
) -> Shaped[torch.Tensor, "row ..."]:
    """The values with new ones in the rows that `rows_of` found."""
    return new if isinstance(rows, slice) else values.index_copy(0, rows, new)


@with_kernel
def peaks(
    hidden: RowStates, tau: RowFloats, eligible: RowMask, blow_up: float | None = None
) -> tuple[RowFloats, RowMask]:
    """‖h‖₂ in float32, and the eligible rows with τ < ‖h‖, and ‖h‖ < b·τ if there is a b (`blow_up`)."""
    norm = norms(hidden)
    active = eligible & (norm > tau)
    return norm, active if blow_up is None else active & (norm < blow_up * tau)


@with_kernel
def keep(
    hidden: RowStates,
    out: RowStates,
    norm: RowFloats,
    tau: RowFloats,
    active: RowMask,
    *,
    damping: float,
    growth: float,
    blow_up: float,
) -> tuple[RowStates, RowFloats, RowMask]:
    """The states after an extra pass, their norms, and the rows that kept it.

    An active row h becomes h' = (1 − α)·h + α·out, exactly `out` at a damping α of 1 and exactly `hidden` at 0, if
    ‖h'‖ ≥ (1 + growth)·‖h‖ and τ < ‖h'‖ < blow_up·τ. All else stays, to the bit. norm: ‖h‖.
    """
    mixed = torch.lerp(hidden, out, damping)
    grown = norms(mixed)
    kept = active & (grown >= (1 + growth) * norm) & (grown > tau) & (grown < blow_up * tau)
    return torch.where(kept[:, None], mixed, hidden), torch.where(kept, grown, norm), kept


@with_kernel
def inject(
    hidden: RowStates,
    norm: RowFloats,
    slot: RowInts,
    may: RowMask,
    bank: Float[torch.Tensor, "slot entry d"],
    bank_norm: Float[torch.Tensor, "slot entry"],
    *,
    min_cosine: float,
    beta: float,
) -> tuple[RowStates, RowMask]:
    """The states with the entry v of the best cosine in their slot's bank mixed in, and the rows that have one.

    Where a row `may`, and the best cosine is `min_cosine` at least, (1 − β)·h + β·v; all else stays, to the bit.
    bank_norm: the norms of the entries, −∞ for an empty place.
    """
    rows = rows_of(may)
    if rows is None:
        return hidden, may
    state, entries, length = hidden[rows], bank[slot[rows]], bank_norm[slot[rows]]
    dots = torch.einsum("rkd,rd->rk", entries.float(), state.float())
    cosine = dots / (length * norm[rows, None]).clamp_min(1e-12)
    best = torch.where(length > -torch.inf, cosine, -torch.inf).max(dim=-1)
    acts = may[rows] & (best.values >= min_cosine)
    vector = entries.gather(1, best.indices[:, None, None].expand(-1, 1, hidden.shape[1]))[:, 0]
    mixed = torch.where(acts[:, None], torch.lerp(state, vector, beta), state)
    return replace_rows(hidden, rows, mixed), replace_rows(may, rows, acts)


def turn(state: RowStates, towards: RowStates, angle: Float[torch.Tensor, "row 1"]) -> RowStates:
    """States of the same norm, turned by an angle (radians) in the plane of state and `towards`; zero stays zero."""
    along = _unit(state)
    across = _unit(towards - (towards * along).sum(dim=-1, keepdim=True) * along)
    return norms(state)[:, None] * (torch.cos(angle) * along + torch.sin(angle) * across)


def _unit(vectors: RowStates) -> RowStates:
    """Unit vectors; the smallest divisor only guards the zero vector, which stays zero."""
    return vectors / norms(vectors).clamp_min(1e-12)[:, None]
