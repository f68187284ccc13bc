"""What a feature's atom points at: the atoms of its dictionary that are nearest, and the tokens that it promotes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from normprobe.models.model import OpenModel

NEIGHBOURS, TOKENS = 5, 10
"""Neighbours of a feature, and tokens that it promotes or demotes most, on its page."""


def neighbours(
    atoms: Float[torch.Tensor, "atom d"], features: list[int]
) -> tuple[Int[np.ndarray, "feature neighbour"], Float[np.ndarray, "feature neighbour"]]:
    """Of each feature the other atoms of largest cosine, nearest first, and that cosine. Atoms are unit vectors."""
    cosine = atoms[features] @ atoms.T
    cosine[range(len(features)), features] = -torch.inf
    top = cosine.topk(min(NEIGHBOURS, len(atoms) - 1), dim=1)
    return top.indices.cpu().numpy(), top.values.cpu().double().numpy()


def logit_effects(
    opened: OpenModel, atoms: Float[torch.Tensor, "feature d"]
) -> Float[np.ndarray, "feature token"]:
    """What each atom adds to the logits: through the final norm's weight and the unembedding, for the tokenizer's ids.

    The logit lens (nostalgebraist, 2020) of the atom alone, less that of a zero state, so that a bias of the norm or
    the unembedding drops out. The scale is that of a state of nothing but this atom; what counts is the order.
    """
    both = torch.cat([atoms, torch.zeros_like(atoms[:1])])
    logits = opened.unembed(both)[:, : len(opened.tokenizer)].cpu().double().numpy()
    return logits[:-1] - logits[-1]
