"""What a probe recorded of some requests: their norms, summed over tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int


@dataclass(frozen=True)
class ProbeSummary:
    """Sums over the tokens of each request, on the CPU; norms in activation units.

    layers: the probe's, in the order of the layer axes. n_tokens: tokens recorded. total: Σ norm. excess:
    Σ max(0, norm − τ). above: #(norm > τ). largest: max norm. width: tokens per block. total_by_block, excess_by_block:
    the same sums over one block after the other, 0 for a block without tokens.
    norm: the first `max_tokens` norms, NaN beyond the last token.
    """

    layers: tuple[int, ...]
    n_tokens: Int[torch.Tensor, " request"]
    total: Float[torch.Tensor, "request layer"]
    excess: Float[torch.Tensor, "request layer"]
    above: Int[torch.Tensor, "request layer"]
    largest: Float[torch.Tensor, "request layer"]
    width: Int[torch.Tensor, " request"]
    total_by_block: Float[torch.Tensor, "request layer block"]
    excess_by_block: Float[torch.Tensor, "request layer block"]
    norm: Float[torch.Tensor, "request layer token"]

    def last(
        self, n_last: Int[torch.Tensor, " request"]
    ) -> tuple[Float[torch.Tensor, "request layer"], Float[torch.Tensor, "request layer"]]:
        """Σ norm and Σ max(0, norm − τ) over the last `n_last` tokens.

        Exact for responses of fewer than `BLOCKS` tokens. Else the block in which the last part begins enters in
        proportion to the tokens of it that belong there: off by at most width/4 times the range of values within it.
        """
        begin = torch.arange(self.total_by_block.shape[2]) * self.width[:, None]
        end = torch.minimum(begin + self.width[:, None], self.n_tokens[:, None])
        filled = (end - begin).clamp_min(0)
        wanted = (end - (self.n_tokens - n_last)[:, None]).clamp_min(0).minimum(filled)
        share = (wanted / filled.clamp_min(1))[:, None]
        total, excess = self.total_by_block * share, self.excess_by_block * share
        return total.sum(dim=2), excess.sum(dim=2)
