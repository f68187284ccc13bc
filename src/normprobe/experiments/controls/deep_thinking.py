"""Deep-thinking ratio: the share of tokens whose prediction settles only in the last layers (arXiv 2602.13517).

From the paper: D_l is the Jensen–Shannon divergence of the distribution read off layer l (the unembedding applied to
its state) from the model's own; a token settles at the first layer with D_l ≤ g and thinks deeply if that layer is one
of those from ⌈ρ·L⌉ on, counted from 1; g = 0.5 and ρ = 0.85. `think_at_n` is what the paper does with it.

Ours, where its text leaves it open: the state passes the final norm before the unembedding, as in the logit lens that
it refers to, so that the ratio does not read the length of the state; the divergence is in bits, since 0.75, a
threshold that the paper tries, is more than it can ever be in nats. The package `deep-think-tokens` 0.1.0 differs: no
norm, nats, ρ = 0.9 of the layers but the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float

DEEP_THINKING = ("deep_thinking_ratio", "deep_thinking_prefix")
SETTLED, LATE = 0.5, 0.85
"""g in bits, and ρ."""
PREFIX = 50
"""Tokens after which Think@n decides; the paper's own number."""
AT_ONCE = 2**23
"""Logits held at once, of each kind: 32 MiB."""

Unembed = Callable[[Float[torch.Tensor, "row d"]], Float[torch.Tensor, "row vocab"]]


@torch.no_grad()
def settles_late(
    unembed: Unembed,
    states: Sequence[Float[torch.Tensor, "token d"]],
    logits: Float[torch.Tensor, "token vocab"],
) -> Bool[torch.Tensor, " token"]:
    """Whether the prediction of each token settles only in the last layers.

    unembed: the logit lens. states: of every layer, in order, at the positions that `logits` (the model's own) belong
    to. A token is looked up from the deepest of the early layers on and no further once it has settled: the same answer
    as all layers give, at the price of few.
    """
    n_early = math.ceil(LATE * len(states)) - 1
    late = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    for rows in torch.arange(len(logits), device=logits.device).split(max(1, AT_ONCE // logits.shape[1])):
        own = torch.log_softmax(logits[rows].float(), dim=-1)
        for layer in reversed(range(n_early)):
            read = torch.log_softmax(unembed(states[layer][rows]).float(), dim=-1)
            near = divergence(read, own) <= SETTLED
            late[rows[near]] = False
            rows, own = rows[~near], own[~near]
            if not len(rows):
                break
    return late


def divergence(
    log_p: Float[torch.Tensor, "row outcome"], log_q: Float[torch.Tensor, "row outcome"]
) -> Float[torch.Tensor, " row"]:
    """Jensen–Shannon divergence of two distributions given as logarithms, bits: 0 if equal, 1 if disjoint."""
    lowest = torch.finfo(log_p.dtype).min  # 0 · −∞ would be no number
    log_p, log_q = log_p.clamp_min(lowest), log_q.clamp_min(lowest)
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    nats = (log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle)).sum(dim=-1) / 2
    return nats / math.log(2)


def deep_thinking(late: Bool[torch.Tensor, " token"]) -> dict[str, float]:
    """The ratio of a response from what `settles_late` found, over all its tokens and over the first `PREFIX`.

    A response without tokens scores −∞.
    """
    if not len(late):
        return dict.fromkeys(DEEP_THINKING, -math.inf)
    shares = (late.float().mean(), late[:PREFIX].float().mean())
    return {name: float(share) for name, share in zip(DEEP_THINKING, shares, strict=True)}
