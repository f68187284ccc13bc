"""What a decode step does to its rows: norm, threshold, mask and mix, each as one function.

On a GPU with Triton each is one launch (`normprobe.policies.ops_triton`). Elsewhere, and as the reference of the tests,
it is plain torch; the two agree to float32 rounding. Nothing here waits for the device.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from jaxtyping import Bool, Float, Int, Shaped

from normprobe.policies.histograms import Histograms
from normprobe.policies.rows import norms

_TRITON = find_spec("triton") is not None


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda and _TRITON


def holding(mask: Bool[torch.Tensor, " row"]) -> Int[torch.Tensor, " holding"] | slice | None:
    """The rows where the mask holds, for work that means nothing elsewhere; None if there are none. All rows, unless a
    look costs nothing, as on the CPU outside a compiled graph."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return slice(None)
    rows = mask.nonzero()[:, 0]
    return rows if len(rows) else None


def put(
    values: Shaped[torch.Tensor, "row ..."],
    rows: Int[torch.Tensor, " holding"] | slice,
    news: Shaped[torch.Tensor, "holding ..."],
) -> Shaped[torch.Tensor, "row ..."]:
    """The values with new ones in the rows that `holding` told."""
    return news if isinstance(rows, slice) else values.index_copy(0, rows, news)


def peaks(
    hidden: Float[torch.Tensor, "row d"],
    tau: Float[torch.Tensor, " row"],
    eligible: Bool[torch.Tensor, " row"],
    blow_up: float | None = None,
) -> tuple[Float[torch.Tensor, " row"], Bool[torch.Tensor, " row"]]:
    """‖h‖₂ in float32, and the eligible rows with τ < ‖h‖, and ‖h‖ < b·τ if there is a b (`blow_up`)."""
    if _on_gpu(hidden):
        from normprobe.policies import ops_triton

        return ops_triton.peaks(hidden, tau, eligible, blow_up)
    norm = norms(hidden)
    active = eligible & (norm > tau)
    return norm, active if blow_up is None else active & (norm < blow_up * tau)


def keep(
    hidden: Float[torch.Tensor, "row d"],
    out: Float[torch.Tensor, "row d"],
    norm: Float[torch.Tensor, " row"],
    tau: Float[torch.Tensor, " row"],
    active: Bool[torch.Tensor, " row"],
    *,
    damping: float,
    growth: float,
    blow_up: float,
) -> tuple[Float[torch.Tensor, "row d"], Float[torch.Tensor, " row"], Bool[torch.Tensor, " row"]]:
    """The states after an extra pass, their norms, and the rows that kept it.

    An active row h becomes h' = (1 − α)·h + α·out, exactly `out` at a damping α of 1 and exactly `hidden` at 0, if
    ‖h'‖ ≥ (1 + growth)·‖h‖ and τ < ‖h'‖ < blow_up·τ. All else stays, to the bit. norm: ‖h‖.
    """
    if _on_gpu(hidden):
        from normprobe.policies import ops_triton

        return ops_triton.keep(
            hidden, out, norm, tau, active, damping=damping, growth=growth, blow_up=blow_up
        )
    mixed = torch.lerp(hidden, out, damping)
    grown = norms(mixed)
    kept = active & (grown >= (1 + growth) * norm) & (grown > tau) & (grown < blow_up * tau)
    return torch.where(kept[:, None], mixed, hidden), torch.where(kept, grown, norm), kept


def inject(
    hidden: Float[torch.Tensor, "row d"],
    norm: Float[torch.Tensor, " row"],
    slot: Int[torch.Tensor, " row"],
    may: Bool[torch.Tensor, " row"],
    bank: Float[torch.Tensor, "slot entry d"],
    held: Float[torch.Tensor, "slot entry"],
    *,
    min_cosine: float,
    beta: float,
) -> tuple[Float[torch.Tensor, "row d"], Bool[torch.Tensor, " row"]]:
    """The states with the entry v of the best cosine in their slot's bank mixed in, and the rows that have one.

    Where a row `may`, and the best cosine is `min_cosine` at least, (1 − β)·h + β·v; all else stays, to the bit.
    held: the norms of the entries, −∞ for an empty place.
    """
    if _on_gpu(hidden):
        from normprobe.policies import ops_triton

        return ops_triton.inject(hidden, norm, slot, may, bank, held, min_cosine=min_cosine, beta=beta)
    rows = holding(may)
    if rows is None:
        return hidden, may
    state, entries, length = hidden[rows], bank[slot[rows]], held[slot[rows]]
    dots = torch.einsum("rkd,rd->rk", entries.float(), state.float())
    cosine = dots / (length * norm[rows, None]).clamp_min(1e-12)
    best = torch.where(length > -torch.inf, cosine, -torch.inf).max(dim=-1)
    acts = may[rows] & (best.values >= min_cosine)
    vector = entries.gather(1, best.indices[:, None, None].expand(-1, 1, hidden.shape[1]))[:, 0]
    mixed = torch.where(acts[:, None], torch.lerp(state, vector, beta), state)
    return put(hidden, rows, mixed), put(may, rows, acts)


def learn(
    histograms: Histograms,
    place: Int[torch.Tensor, " asked"] | None,
    slot: Int[torch.Tensor, " row"],
    norm: Float[torch.Tensor, "asked row"],
    eligible: Bool[torch.Tensor, " row"],
) -> None:
    """Count the norms of some layers (their `place` in the histograms; None: all, in order), then renew τ of the
    requests that showed them.

    Rows that are not eligible, of slot −1 or of norm NaN do not count. At most one row per slot does.
    """
    if _on_gpu(norm):
        from normprobe.policies import ops_triton

        return ops_triton.learn(histograms, place, slot, norm, eligible)
    h = histograms
    low, width, edges, prior, base = (
        values if place is None else values.index_select(0, place)
        for values in (h.low, h.width, h.edges, h.prior, h.base)
    )
    n_slots, n_columns = h.counts.shape[1:]
    # In place: with so few numbers the operations are what costs. Slot −1 is the last, which does not count.
    first = base + torch.where(eligible, slot, n_slots - 1).remainder_(n_slots).mul_(n_columns)
    column = torch.searchsorted(edges, norm).add_(first).flatten()
    h.counts.view(-1).put_(column, torch.ones_like(norm).flatten(), accumulate=True)
    row = first.div_(n_columns, rounding_mode="floor").flatten()
    counts = h.counts.view(-1, n_columns).index_select(0, row).view(*norm.shape, n_columns)
    h.tau.view(-1).index_copy_(0, row, h.fence(counts, low, width, prior).flatten())
    return None
