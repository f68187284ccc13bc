"""What a decode step does to its rows: norm, threshold, mask and mix, each as one function.

On a GPU with Triton each is one launch (`normprobe.policies.kernels`). Elsewhere, and as the reference of the tests, it
is plain torch; the two agree to float32 rounding. Nothing here waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from jaxtyping import Bool, Float, Int, Shaped

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
        from normprobe.policies import kernels

        return kernels.peaks(hidden, tau, eligible, blow_up)
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
        from normprobe.policies import kernels

        return kernels.keep(hidden, out, norm, tau, active, damping=damping, growth=growth, blow_up=blow_up)
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
        from normprobe.policies import kernels

        return kernels.inject(hidden, norm, slot, may, bank, held, min_cosine=min_cosine, beta=beta)
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


@dataclass(frozen=True)
class Histograms:
    """Of log-norms, by layer and request; one slot more than there are requests takes what does not count.

    counts: column b holds the norms between the edges b − 1 and b. Column 0 stays 0, so that a running sum is the
        distribution at the edges; the last takes NaN norms, which do not count.
    tau: Q3 + k·max(IQR, smallest_iqr) of counts and prior together, in activation units.
    low, width: the lowest edge and the distance of edges, in log-norm. edges: the inner ones as norms, −∞ and ∞ around.
    prior: pseudo-tokens up to each edge. base: a layer's first column. every: all layers. levels: of the quartiles.
    """

    counts: Float[torch.Tensor, "layer slot column"]
    tau: Float[torch.Tensor, "layer slot"]
    low: Float[torch.Tensor, "layer 1"]
    width: Float[torch.Tensor, "layer 1"]
    edges: Float[torch.Tensor, "layer edge"]
    prior: Float[torch.Tensor, "layer 1 edge"]
    base: Int[torch.Tensor, "layer 1"]
    every: Int[torch.Tensor, " layer"]
    levels: Float[torch.Tensor, 2]
    k: float
    smallest_iqr: float

    @classmethod
    def fresh(
        cls,
        n_slots: int,
        low: Float[torch.Tensor, "layer 1"],
        width: Float[torch.Tensor, "layer 1"],
        prior: Float[torch.Tensor, "layer 1 edge"],
        k: float,
        smallest_iqr: float,
    ) -> Histograms:
        """Of requests that have shown nothing: τ is the prior's."""
        n_layers, _, n_edges = prior.shape
        device = prior.device
        edges = torch.exp(low + width * torch.arange(n_edges, device=device))
        edges[:, 0], edges[:, -1] = -torch.inf, torch.inf
        counts = prior.new_zeros(n_layers, n_slots + 1, n_edges + 1)
        every = torch.arange(n_layers, device=device)
        base = every[:, None] * counts.stride(0)
        levels = torch.tensor([0.25, 0.75], device=device)
        made = cls(counts, counts[..., 0], low, width, edges, prior, base, every, levels, k, smallest_iqr)
        tau = made.fence(counts[:, :1], low, width, prior)
        return replace(made, tau=tau.repeat(1, n_slots + 1))

    def fence(
        self,
        counts: Float[torch.Tensor, "layer row column"],
        low: Float[torch.Tensor, "layer 1"],
        width: Float[torch.Tensor, "layer 1"],
        prior: Float[torch.Tensor, "layer 1 edge"],
    ) -> Float[torch.Tensor, "layer row"]:
        """τ of some layers and requests; a quantile is linear in log-norm within its bin."""
        reached = counts[..., :-1].cumsum(dim=-1).add_(prior)
        target = reached[..., -1:] * self.levels
        upper = torch.searchsorted(reached, target)  # the first edge that reaches it, never edge 0
        lower = upper - 1
        at_lower = reached.gather(-1, lower)
        share = target.sub_(at_lower).div_(reached.gather(-1, upper).sub_(at_lower))
        fences = torch.addcmul(low[..., None], share.add_(lower), width[..., None]).exp_()
        first, third = fences.unbind(dim=-1)
        return torch.add(third, (third - first).clamp_min_(self.smallest_iqr), alpha=self.k)


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
        from normprobe.policies import kernels

        return kernels.learn(histograms, place, slot, norm, eligible)
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
