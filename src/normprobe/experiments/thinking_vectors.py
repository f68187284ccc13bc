"""The vectors of contrastive activation addition: what thinking adds to the mean state (CAA, arXiv 2312.06681)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float

from normprobe.models.model import OpenModel
from normprobe.models.sites import record_sites

PROBLEMS = 64
"""Of the split `select`, which no verdict is measured on."""


@torch.inference_mode()
def thinking_vectors(
    opened: OpenModel, responses: pd.DataFrame, layers: Sequence[int]
) -> dict[int, Float[torch.Tensor, " d"]]:
    """By layer, the mean state of the tokens of think responses minus that of no_think, of the same problems.

    The states are those that a policy sees: the ones that yield the response's tokens. float32, activation units.
    """
    chosen = responses[responses["split"] == "select"]
    chosen = chosen[chosen["problem_id"].isin(chosen["problem_id"].unique()[:PROBLEMS])]
    means = {mode: _mean(opened, chosen[chosen["mode"] == mode], layers) for mode in ("think", "no_think")}
    return {layer: means["think"][layer] - means["no_think"][layer] for layer in layers}


def _mean(
    opened: OpenModel, responses: pd.DataFrame, layers: Sequence[int]
) -> dict[int, Float[torch.Tensor, " d"]]:
    sums = dict.fromkeys(layers, torch.zeros((), device=opened.device))
    n = 0
    for ids, n_prompt in zip(responses["token_ids"], responses["n_prompt"], strict=True):
        with record_sites(opened) as sites:
            opened.model(input_ids=torch.tensor(ids, device=opened.device)[None], use_cache=False)
            for layer in layers:
                sums[layer] = sums[layer] + sites.states[layer][0, n_prompt - 1 : -1].float().sum(dim=0)
        n += len(ids) - n_prompt
    return {layer: total / n for layer, total in sums.items()}
