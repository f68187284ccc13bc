"""Scores of a model's confidence in a response, from its next-token distributions: baselines of LRS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class TokenConfidence:
    """What a next-token distribution tells of each token of a response; nats, float32.

    logprob: of the token. certainty: KL(uniform ‖ p), that is −(1/V) Σ_j log p_j − log V ≥ 0 (arXiv 2502.18581).
    candidates: DeepConf's confidence, −mean log p of the likeliest candidates, the token itself or not (arXiv
    2508.15260).
    """

    logprob: Float[torch.Tensor, " token"]
    certainty: Float[torch.Tensor, " token"]
    candidates: Float[torch.Tensor, " token"]

    @classmethod
    def of(
        cls, logits: Float[torch.Tensor, "token vocab"], tokens: Int[torch.Tensor, " token"]
    ) -> TokenConfidence:
        """Of the tokens that these logits predict."""
        log_p = torch.log_softmax(logits.float(), dim=-1)
        vocab = log_p.shape[1]
        return cls(
            log_p.gather(1, tokens[:, None])[:, 0],
            (-log_p.mean(dim=-1) - math.log(vocab)).clamp_min(0),  # rounding can carry it below
            -log_p.topk(min(CANDIDATES, vocab), dim=-1).values.mean(dim=-1),
        )

    @classmethod
    def joined(cls, parts: Sequence[TokenConfidence]) -> TokenConfidence:
        """Of a response whose tokens were read in parts."""
        return cls(
            *(
                torch.cat([getattr(part, name) for part in parts])
                for name in ("logprob", "certainty", "candidates")
            )
        )


def confidences(of: TokenConfidence) -> dict[str, float]:
    """Scores of one response, nats; higher is surer. A response without tokens scores −∞.

    mean_logprob and self_certainty: means over tokens. deepconf_…: DeepConf's confidence, its mean over all tokens,
    over the least confident tenth of sliding windows, of the least confident window, over the last quarter. A response
    shorter than a window is one window.
    """
    n = len(of.logprob)
    if n == 0:
        return dict.fromkeys(CONFIDENCES, -math.inf)
    groups = group_confidences(of).sort().values
    scores = (
        of.logprob.mean(),
        of.certainty.mean(),
        of.candidates.mean(),
        groups[: max(1, int(WORST * len(groups)))].mean(),
        groups[0],
        of.candidates[n - max(1, round(TAIL * n)) :].mean(),
    )
    return {name: float(score) for name, score in zip(CONFIDENCES, scores, strict=True)}


def group_confidences(of: TokenConfidence) -> Float[torch.Tensor, " group"]:
    """The mean confidence of each sliding window of tokens, in order, nats: the groups of `confidences`."""
    n = len(of.candidates)
    return of.candidates.unfold(0, min(WINDOW, n), 1).mean(dim=-1) if n else of.candidates
