"""What a policy sees of a running model, and what it gives back: the seam between policies and engines."""

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
    """

    hidden: Float[torch.Tensor, "row d"]
    slot: Int[torch.Tensor, " row"]
    step: Int[torch.Tensor, " row"]

    @property
    def eligible(self) -> Bool[torch.Tensor, " row"]:
        """The rows a policy may change: the last prompt token and the generated tokens."""
        return self.step >= 0


@runtime_checkable
class Policy(Protocol):
    """An intervention. What a row gets may depend on its own slot's history, never on the other slots in the batch."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers (from 0) after which the policy wants to be asked."""
        ...

    def apply(
        self, rows: Rows, layer: int
    ) -> tuple[Float[torch.Tensor, "row d"], Bool[torch.Tensor, " row"]]:
        """The new states, and where they were changed. Rows that are not eligible come back bit-equal."""
        ...


def norms(hidden: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, " row"]:
    """‖h‖₂ of each row, in float32 whatever the dtype of the model."""
    return torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)


def request_key(request: str) -> int:
    """What keys a request's random draws: a hash of its name, so that neither its slot nor the batch has a say."""
    return int.from_bytes(hashlib.blake2b(request.encode(), digest_size=8).digest(), "big")
