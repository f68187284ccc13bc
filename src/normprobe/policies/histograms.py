"""Histograms of log-norms, one per layer and request: what an adaptive threshold remembers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Histograms:
    """Counts of log-norms by layer and request. One slot more takes the norms that do not count.

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
    levels: Float[torch.Tensor, " 2"]
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
        """Empty histograms; τ is the prior's."""
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
