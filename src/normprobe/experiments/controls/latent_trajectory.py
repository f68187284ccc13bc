"""Latent trajectory: how far, how long and how straight the states of a thought travel (arXiv 2510.10494).

From the authors' code (martinagvilas/LT-signals): states are averaged over segments of the thought; of the averages
h₁ … h_N of a layer net change is ‖h_N − h₁‖ / (N − 1), cumulative change Σ ‖h_n − h_{n−1}‖, aligned change the mean
cosine of h_n − h_{n−1} with h_N − h₁; each is averaged over the layers; a thought of one segment has none (NaN). A high
net and aligned change and a low cumulative one speak for a response.

Ours: segments of 16 tokens instead of 500, as thoughts here have tens of tokens and not thousands; the site after every
layer, where theirs has passed the final norm at the last. Not taken: the combination of the three and the threshold
above which a sample ends the sampling, both of which the authors fit to right answers.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float

LATENT_TRAJECTORY = ("lt_net_change", "lt_cumulative_change", "lt_aligned_change")
SEGMENT = 16
"""Tokens per segment."""


def latent_trajectory(states: Float[torch.Tensor, "layer token d"]) -> dict[str, float]:
    """The three signals of one thought, float32: the first two in activation units, the third a cosine."""
    if states.shape[1] <= SEGMENT:
        return dict.fromkeys(LATENT_TRAJECTORY, math.nan)
    parts = [part.float().mean(dim=1) for part in states.split(SEGMENT, dim=1)]
    segments = torch.stack(parts, dim=1)
    steps, drift = segments.diff(dim=1), segments[:, -1] - segments[:, 0]
    signals = (
        torch.linalg.vector_norm(drift, dim=-1) / steps.shape[1],
        torch.linalg.vector_norm(steps, dim=-1).sum(dim=1),
        torch.cosine_similarity(steps, drift[:, None], dim=-1).mean(dim=1),
    )
    return {name: float(by_layer.mean()) for name, by_layer in zip(LATENT_TRAJECTORY, signals, strict=True)}
