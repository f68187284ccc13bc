"""What a policy sees of a running model, and what it gives back: the seam between policies and engines."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int


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

    hidden: Float[torch.Tensor, "row d"]
    slot: Int[torch.Tensor, " row"]
    step: Int[torch.Tensor, " row"]
    entropy: Float[torch.Tensor, " row"] | None = None

    @property
    def eligible(self) -> Bool[torch.Tensor, " row"]:
        """The rows a policy may change: the last prompt token and the generated tokens."""
        return self.step >= 0


@dataclass(frozen=True)
class Change:
    """What a policy made of the rows.

    hidden: the new states, in the dtype they came in; rows that are not `triggered` are bit-equal to what came.
    triggered: where the policy acted: tried an extra pass, mixed, scaled. A tried pass may have been thrown away.
    passes: extra passes of the layer spent on each row; None for a policy that makes none.
    """

    hidden: Float[torch.Tensor, "row d"]
    triggered: Bool[torch.Tensor, " row"]
    passes: Int[torch.Tensor, " row"] | None = None


@runtime_checkable
class Rerun(Protocol):
    """Provided by the engine: the layer once more on its own output, reading the cache and writing nothing to it."""

    def __call__(
        self, active: Bool[torch.Tensor, " row"], states: Float[torch.Tensor, "row d"]
    ) -> Float[torch.Tensor, "row d"] | None:
        """New states of the active rows given `states`; what stands in the other rows means nothing.

        None if the engine knows that no row is active (eager mode: it computes the active rows only, and reads their
        number once). A compiled engine computes all rows and never knows.
        """
        ...


@runtime_checkable
class Policy(Protocol):
    """An intervention: immutable settings. What a row gets may depend on the history of its own request, never on the
    other requests in the batch."""

    kind: ClassVar[str]
    """recursion, steering, suppression or probe: what `Combined` tells conflicts by."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers (from 0) after which the policy wants to be asked."""
        ...

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        """The policy at work, with room for the histories of `n_slots` requests at a time, of width d."""
        ...


@runtime_checkable
class RunningPolicy(Protocol):
    """A policy at work. All tensor maths: nothing here waits for the device, but for what `rerun` itself reads."""

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        """From now on these slots hold these requests, of which nothing has been seen. Must precede their first row.

        A request's name keys its random draws and nothing else.
        """
        ...

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """Change the states of one layer in one pass, layers in ascending order. History does not change yet."""
        ...

    def finish(self) -> None:
        """The pass is over: what the layers asked since the last call have shown enters the history, all at once."""
        ...


class Stateless(ABC):
    """Mixin of policies without a history: the settings act themselves."""

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return self

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:  # noqa: B027  nothing to forget
        pass

    @abstractmethod
    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change: ...

    def finish(self) -> None:  # noqa: B027  nothing to remember
        pass


def norms(hidden: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, " row"]:
    """‖h‖₂ of each row, in float32 whatever the dtype of the model."""
    return torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)


def request_key(request: str) -> int:
    """What keys a request's random draws: a hash of its name, so that neither its slot nor the batch has a say.

    An unsigned 64-bit number.
    """
    return int.from_bytes(hashlib.blake2b(request.encode(), digest_size=8).digest(), "big")
