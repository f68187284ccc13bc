"""What a policy sees of a running model and what it gives back: rows, changes, and extra passes of a layer."""

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


def norms(hidden: RowStates) -> RowFloats:
    """‖h‖₂ of each row, in float32 whatever the dtype of the model."""
    return torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
