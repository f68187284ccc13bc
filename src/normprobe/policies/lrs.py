"""LRS: score a response by the norms of its hidden states, and choose among responses (arXiv 2606.06188).

The reference code scores by layer over the decoded tokens: A = Σ norm, B = Σ max(0, norm − τ), C = #(norm > τ), D = B
over the last 30 % of the tokens; it has no selection. The paper, as a third party reports it, sums the norms of the
deepest layers over the last third and takes the highest. A sum grows with the length of a response, so each form is
also given per token.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError

LAST_PART, LAST_THIRD = 0.3, 1 / 3
FORMS: tuple[str, ...] = ("A", "B", "C", "D", "last_third")


def lrs_scores(
    norm: Float[torch.Tensor, "layer token"], tau: Float[torch.Tensor, " layer"]
) -> dict[str, float]:
    """The scores of one response, summed over the layers given; float32 sums.

    Keys: A, B, C, D, last_third and each with `_per_token`, divided by the tokens it sums over. A response without
    tokens scores 0.
    """
    n = norm.shape[1]
    excess = (norm - tau[:, None]).clamp_min(0)
    parts = (
        norm,
        excess,
        (norm > tau[:, None]).float(),
        excess[:, n - last_tokens(n, LAST_PART) :],
        norm[:, n - last_tokens(n, LAST_THIRD) :],
    )
    sums = dict(zip(FORMS, (float(part.sum()) for part in parts), strict=True))
    return with_rates(sums, n)


def with_rates(sums: Mapping[str, float], n: int) -> dict[str, float]:
    """The sums of a response of n tokens (keys: FORMS), and each per token that it sums over."""
    counts = {"D": last_tokens(n, LAST_PART), "last_third": last_tokens(n, LAST_THIRD)}
    rates = {f"{form}_per_token": value / max(counts.get(form, n), 1) for form, value in sums.items()}
    return dict(sums) | rates


def last_tokens(n: int, share: float) -> int:
    """How many of n tokens the last part holds: at least one where there is any."""
    return min(n, max(1, round(share * n)))


def choose(scores: Sequence[float]) -> int:
    """The index of the highest score; the first of equals. NaN is below every number."""
    return rank(scores)[0]


def rank(scores: Sequence[float]) -> list[int]:
    """Indices from the highest score to the lowest, NaN last; equals stay in order."""
    return sorted(range(len(scores)), key=lambda i: (math.isnan(scores[i]), -scores[i]))


def vote(answers: Sequence[Hashable | None], weights: Sequence[float]) -> int:
    """The index of the first response that gives the answer of the largest total weight.

    Responses without an answer (None) have no vote, and their weights no meaning; if none has one, the first is chosen.
    Of answers with equal weight the one given first wins; totals are rounded once, so that the order of the responses
    decides nothing else. Raises NormprobeError for a weight that is negative or NaN.
    """
    ballots: dict[Hashable, list[float]] = {}
    for given, weight in zip(answers, weights, strict=True):
        if given is not None:
            if not weight >= 0:
                raise NormprobeError(
                    f"expected weights ≥ 0 in a vote, got {weight}; weight with scores that cannot be negative"
                )
            ballots.setdefault(given, []).append(weight)
    if not ballots:
        return 0
    totals = {given: math.fsum(cast) for given, cast in ballots.items()}
    # Of equals max takes the first, and dicts keep the order of first ballots.
    winner = max(totals, key=totals.__getitem__)
    return list(answers).index(winner)
