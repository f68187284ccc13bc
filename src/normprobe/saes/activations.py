"""The states that sparse autoencoders are trained on: a fixed sample of one split's tokens, held in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.tracing.stream import check_finite, stream_states, token_offsets

SPLIT = "sae"
PAIRED = ("think", "no_think")
"""The modes whose difference is studied, and that dictionaries are trained on."""
_STATES_AT_ONCE = 2**28


def layer_groups(layers: Sequence[int], bytes_per_layer: int, memory: int) -> list[list[int]]:
    """The layers in consecutive groups whose samples fit into `memory` bytes together (one layer, if none fits)."""
    size = max(1, memory // bytes_per_layer)
    return [list(layers[start : start + size]) for start in range(0, len(layers), size)]


def responses_at_once(opened: OpenModel, responses: pd.DataFrame) -> int:
    """How many responses to read in one batch: 64, or so few that a batch's states of all layers take at most 1 GB."""
    floats = len(opened.blocks) * opened.identity.d_model * int(responses["token_ids"].map(len).max())
    return min(64, max(1, _STATES_AT_ONCE // floats))


def training_responses(responses: pd.DataFrame) -> pd.DataFrame:
    """The responses to train on: split "sae", modes think and no_think. Raises NormprobeError if there are none."""
    chosen = responses[(responses["split"] == SPLIT) & responses["mode"].isin(list(PAIRED))]
    if chosen.empty:
        raise NormprobeError(
            f"expected responses in split '{SPLIT}' and modes {' or '.join(PAIRED)} to train on, got none; "
            "give problems with that split"
        )
    return chosen.reset_index(drop=True)


def draw_tokens(responses: pd.DataFrame, n: int, generator: torch.Generator) -> Int[np.ndarray, " row"]:
    """At most n tokens of `responses` without replacement, ascending, as rows of their token table (`token_offsets`).

    Prompt, thought, template and answer tokens alike; only position 0 is left out, where massive activations sit
    whatever the text (arXiv 2402.17762) and would take the dictionary's first atoms.
    """
    lengths = responses["token_ids"].map(len).to_numpy(dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    eligible = np.setdiff1d(np.arange(lengths.sum()), first, assume_unique=True)
    order = torch.randperm(len(eligible), generator=generator).numpy()
    return np.sort(eligible[order[:n]])


def sample_states(
    opened: OpenModel,
    responses: pd.DataFrame,
    rows: Int[np.ndarray, " row"],
    layers: Sequence[int],
    subject: str,
) -> Float[torch.Tensor, "layer row d"]:
    """resid_post of these layers at the tokens `rows`, on the CPU, in the model's own dtype (which loses nothing).

    Raises NormprobeError if a state is NaN or infinite, naming the layer and `subject`.
    """
    offsets, n = token_offsets(responses, [SPLIT])
    place = np.full(n, -1)
    place[rows] = np.arange(len(rows))
    states: torch.Tensor | None = None
    for batch in stream_states(opened, responses, [SPLIT], responses_at_once(opened, responses)):
        check_finite(batch, layers, subject)
        target = place[offsets[batch.response_index] + batch.position]
        kept = np.flatnonzero(target >= 0)
        here = batch.states[list(layers)][:, torch.from_numpy(kept).to(batch.states.device)]
        if states is None:
            states = torch.empty((len(layers), len(rows), here.shape[-1]), dtype=opened.model.dtype)
        states[:, torch.from_numpy(target[kept])] = here.to("cpu", states.dtype)
    assert states is not None  # `training_responses` refused an empty table
    return states
