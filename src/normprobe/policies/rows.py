"""What a policy sees of a running model and what it gives back: rows, changes, extra passes, and what it recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int

RowStates = Float[torch.Tensor, "row d"]
RowFloats = Float[torch.Tensor, " row"]
RowInts = Int[torch.Tensor, " row"]
RowMask = Bool[torch.Tensor, " row"]


@dataclass(frozen=True)
class Rows:
    """The states of one layer in one forward pass; one row = one token of one request.

    hidden: the residual stream after the layer, in the model's dtype.
    slot: a stable index of the request, the same for all its tokens whatever else is in the batch; −1 for padding.
    step: the token's absolute position minus that of the last prompt token, so 0 is the state that yields the first
        generated token and k the one that yields token k; negative for the rest of the prompt and for padding.
        Together with the slot it names a row independently of batching, chunked prefill and preemption.
    entropy: nats, of the distribution that the row's own token was drawn from (0 for the last prompt token, which was
        given); None where the engine does not know it.

    At most one row per slot is eligible: an engine whose pass holds several hands them over one after the other.
    """

    hidden: RowStates
    slot: RowInts
    step: RowInts
    entropy: RowFloats | None = None

    @property
    def eligible(self) -> RowMask:
        """The rows a policy may change: the last prompt token and the generated tokens."""
        return self.step >= 0


@dataclass(frozen=True)
class Change:
    """What a policy made of the rows.

    hidden: the new states, in the dtype they came in; rows that are not `triggered` are bit-equal to what came.
    triggered: where the policy acted: tried an extra pass, mixed, scaled. A tried pass may have been thrown away.
    passes: extra passes of the layer spent on each row; None for a policy that makes none.
    """

    hidden: RowStates
    triggered: RowMask
    passes: RowInts | None = None


@runtime_checkable
class Rerun(Protocol):
    """The layer once more on its own output, reading the cache and writing nothing to it; the engine provides it."""

    def __call__(self, active: RowMask, states: RowStates) -> RowStates | None:
        """New states of the active rows given `states`; the other rows may hold anything.

        None if the engine knows that no row is active (eager mode: it computes the active rows only, and reads their
        number once). A compiled engine computes all rows and never knows.
        """
        ...


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


def norms(hidden: RowStates) -> RowFloats:
    """‖h‖₂ of each row, in float32 whatever the dtype of the model."""
    return torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
