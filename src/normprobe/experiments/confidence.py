"""Scores of a model's confidence in a response, from its next-token distributions: baselines of LRS."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int

CONFIDENCES = (
    "mean_logprob",
    "self_certainty",
    "deepconf_mean",
    "deepconf_worst",
    "deepconf_lowest",
    "deepconf_tail",
)
CANDIDATES = 20
"""Candidates that a token's confidence averages over (DeepConf's k)."""
WINDOW = 16
"""Tokens in a group. DeepConf has 2,048, for responses of tens of thousands of tokens."""
WORST, TAIL = 0.1, 0.25
"""Share of the least confident groups, and of the last tokens, that the two scores of those names average over.

DeepConf's tail is a fixed 2,048 tokens; a share holds for short responses too.
"""


def confidences(
    logits: Float[torch.Tensor, "token vocab"], tokens: Int[torch.Tensor, " token"]
) -> dict[str, float]:
    """Scores of one response, nats, computed in float32; higher is surer. A response without tokens scores −∞.

    mean_logprob: mean log-probability of the tokens. self_certainty: mean over tokens of KL(uniform ‖ p), that is
    −(1/V) Σ_j log p_j − log V ≥ 0 (arXiv 2502.18581). deepconf_…: a token's confidence is −mean log p of its likeliest
    candidates, the token itself or not (arXiv 2508.15260); mean over all, over the least confident tenth of sliding
    windows, of the least confident window, over the last quarter. A response shorter than a window is one window.
    """
    n = len(tokens)
    if n == 0:
        return dict.fromkeys(CONFIDENCES, -math.inf)
    log_p, token = _token_confidence(logits)
    vocab = log_p.shape[1]
    groups = token.unfold(0, min(WINDOW, n), 1).mean(dim=-1).sort().values
    certainty = -log_p.mean(dim=-1) - math.log(vocab)
    scores = (
        log_p.gather(1, tokens[:, None]).mean(),
        certainty.clamp_min(0).mean(),  # rounding can carry it below
        token.mean(),
        groups[: max(1, int(WORST * len(groups)))].mean(),
        groups[0],
        token[n - max(1, round(TAIL * n)) :].mean(),
    )
    return {name: float(score) for name, score in zip(CONFIDENCES, scores, strict=True)}


def group_confidences(logits: Float[torch.Tensor, "token vocab"]) -> Float[torch.Tensor, " group"]:
    """The mean confidence of each sliding window of tokens, in order, nats: the groups of `confidences`."""
    n = len(logits)
    if n == 0:
        return torch.zeros(0, device=logits.device)
    return _token_confidence(logits)[1].unfold(0, min(WINDOW, n), 1).mean(dim=-1)


def _token_confidence(
    logits: Float[torch.Tensor, "token vocab"],
) -> tuple[Float[torch.Tensor, "token vocab"], Float[torch.Tensor, " token"]]:
    """log p, and DeepConf's confidence of each token; nats, float32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    return log_p, -log_p.topk(min(CANDIDATES, log_p.shape[1]), dim=-1).values.mean(dim=-1)
