"""Histograms of log-norms, one per layer and request: an adaptive threshold at work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from normprobe.layer_profile import SMALLEST_IQR
from normprobe.policies.ops import with_kernel
from normprobe.policies.rows import RowFloats, RowInts, RowMask


class Histograms:
    """Counts of log-norms by layer and request, and the τ of each. One slot more takes the norms that do not count.

    Made from, by layer, the outermost edges in log-norm and the pseudo-tokens up to each edge.

    counts [layer, slot, column]: column b holds the norms between the edges b − 1 and b. Column 0 stays 0, so that a
        running sum is the distribution at the edges; the last takes NaN norms, which do not count.
    taus [layer, slot]: Q3 + k·max(IQR, 0.001) of counts and prior together, in activation units.
    low, width [layer, 1]: the lowest edge and the distance of edges, in log-norm.
    edges [layer, edge]: the inner ones as norms, −∞ and ∞ around. prior [layer, 1, edge]: pseudo-tokens up to each.
    base [layer, 1]: a layer's first column. every [layer]: all layers.
    """

    def __init__(
        self,
        layers: Sequence[int],
        low: Float[np.ndarray, " layer"],
        high: Float[np.ndarray, " layer"],
        prior: Float[np.ndarray, "layer edge"],
        k: float,
        n_slots: int,
        device: torch.device,
    ) -> None:
        n_layers, n_edges = prior.shape
        # All made here: a tensor made of numbers in a pass would wait for the device.
        self.low, self.width, self.prior = (
            torch.tensor(values, dtype=torch.float32, device=device)
            for values in (low[:, None], (high - low)[:, None] / (n_edges - 1), prior[:, None])
        )
        self.k = k
        self.edges = torch.exp(self.low + self.width * torch.arange(n_edges, device=device))
        self.edges[:, 0], self.edges[:, -1] = -torch.inf, torch.inf
        self.counts = self.prior.new_zeros(n_layers, n_slots + 1, n_edges + 1)
        self.every = torch.arange(n_layers, device=device)
        self.base = self.every[:, None] * self.counts.stride(0)
        self._levels = torch.tensor([0.25, 0.75], device=device)
        self._fresh = self.fence(self.counts[:, :1], self.low, self.width, self.prior)
        self.taus = self._fresh.repeat(1, n_slots + 1)
        # Numbers, no views of `taus`: torch.compile gives a graph whose inputs share memory no place of its own.
        self._index = {layer: at for at, layer in enumerate(layers)}
        self._places = dict(zip(layers, self.every, strict=True))
        self._norms: dict[int, torch.Tensor] = {}
        self._rows: tuple[torch.Tensor, torch.Tensor] | None = None

    def reset(self, slots: Sequence[int]) -> None:
        """Forget these requests: τ is the prior's again."""
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._fresh.device)
        self.counts[:, at] = 0
        self.taus[:, at] = self._fresh

    def tau(self, layer: int, slot: RowInts) -> RowFloats:
        """τ of each row, from what its request has shown before this pass; some finite τ for padding, slot −1."""
        return self.taus[self._index[layer]][slot]

    def observe(self, layer: int, slot: RowInts, norm: RowFloats, eligible: RowMask) -> None:
        """Remember the norms of a pass for `finish`. Rows that are not eligible and NaN norms do not count.

        All layers of a pass are asked about the same rows.
        """
        self._norms[layer] = norm
        self._rows = (slot, eligible)

    def finish(self) -> None:
        """Count the norms observed since the last call, all layers at once."""
        if self._rows is None:
            return
        # An engine may hold some of the layers only.
        whole = len(self._norms) == len(self._places)
        place = None if whole else torch.stack([self._places[layer] for layer in self._norms])
        slot, eligible = self._rows
        learn(self, place, slot, torch.stack(list(self._norms.values())), eligible)
        self._norms.clear()
        self._rows = None

    def fence(
        self,
        counts: Float[torch.Tensor, "layer row column"],
        low: Float[torch.Tensor, "layer 1"],
        width: Float[torch.Tensor, "layer 1"],
        prior: Float[torch.Tensor, "layer 1 edge"],
    ) -> Float[torch.Tensor, "layer row"]:
        """τ of some layers and requests; a quantile is linear in log-norm within its bin."""
        reached = counts[..., :-1].cumsum(dim=-1).add_(prior)
        target = reached[..., -1:] * self._levels
        upper = torch.searchsorted(reached, target)  # the first edge that reaches it, never edge 0
        lower = upper - 1
        at_lower = reached.gather(-1, lower)
        share = target.sub_(at_lower).div_(reached.gather(-1, upper).sub_(at_lower))
        fences = torch.addcmul(low[..., None], share.add_(lower), width[..., None]).exp_()
        first, third = fences.unbind(dim=-1)
        return torch.add(third, (third - first).clamp_min_(SMALLEST_IQR), alpha=self.k)


@with_kernel
def learn(
    histograms: Histograms,
    place: Int[torch.Tensor, " asked"] | None,
    slot: RowInts,
    norm: Float[torch.Tensor, "asked row"],
    eligible: RowMask,
) -> None:
    """Count the norms of some layers (their `place` in the histograms; None: all, in order), then renew τ of the
    requests that showed them.

    Rows that are not eligible, of slot −1 or of norm NaN do not count. At most one row per slot does.
    """
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
    h.taus.view(-1).index_copy_(0, row, h.fence(counts, low, width, prior).flatten())
