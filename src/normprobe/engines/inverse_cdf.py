"""The next token of a request from its logits and a uniform number, and the entropy of what it was drawn from."""

from __future__ import annotations

import torch
from jaxtyping import Float

from normprobe.policies.rows import RowFloats, RowInts

RowLogits = Float[torch.Tensor, "row vocab"]


def inverse_cdf(logits: RowLogits, uniform: RowFloats) -> RowInts:
    """The first token whose cumulated probability exceeds the draw. float64: sums over a large vocabulary drift."""
    cumulated = torch.softmax(logits.double(), dim=-1).cumsum(dim=-1)
    return (cumulated <= uniform[:, None] * cumulated[:, -1:]).sum(dim=-1)


def output_entropy(logits: RowLogits) -> RowFloats:
    """The entropy of softmax(logits), nats, float32."""
    return torch.special.entr(torch.softmax(logits.float(), dim=-1)).sum(dim=-1)
