"""The states that sparse autoencoders are trained on: a fixed sample of one split's tokens, a chunk of it in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.ranks import ALONE, Rank
from normprobe.saes.exchange import exchange
from normprobe.tracing.stream import (
    Piece,
    batch_plan,
    check_finite,
    reading_plan,
    stream_states,
    token_offsets,
)

SPLIT, HELD_OUT = "sae", "select"
"""What dictionaries are trained on, and what they are judged on."""
PAIRED = ("think", "no_think")
"""The modes whose difference is studied, and that dictionaries are trained on."""


def layer_groups(layers: Sequence[int], bytes_per_layer: int, memory: int) -> list[list[int]]:
    """The layers in consecutive groups whose samples fit into `memory` bytes together (one layer, if none fits)."""
    size = max(1, memory // bytes_per_layer)
    return [list(layers[start : start + size]) for start in range(0, len(layers), size)]


def paired_responses(responses: pd.DataFrame, split: str = SPLIT) -> pd.DataFrame:
    """The responses of a split in the modes think and no_think. Raises NormprobeError if there are none."""
    chosen = responses[(responses["split"] == split) & responses["mode"].isin(list(PAIRED))]
    if chosen.empty:
        purpose = {SPLIT: "train dictionaries on", HELD_OUT: "judge them on"}[split]
        raise NormprobeError(
            f"expected responses in split '{split}' and modes {' or '.join(PAIRED)} to {purpose}, got none; "
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


@dataclass(frozen=True)
class Chunk:
    """Sampled tokens whose states are held at once: responses, and rows of their token table (`token_offsets`)."""

    responses: pd.DataFrame
    rows: Int[np.ndarray, " row"]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the responses' token ids and of the rows."""
        digest = hashlib.sha256(self.rows.tobytes())
        for ids in self.responses["token_ids"]:
            digest.update(np.asarray(ids, dtype=np.int64).tobytes())
        return digest.hexdigest()


def chunks(
    responses: pd.DataFrame, rows: Int[np.ndarray, " row"], size: int, generator: torch.Generator
) -> list[Chunk]:
    """The tokens `rows` of `responses` in as few chunks of at most `size` tokens as there can be, of nearly equal size.

    Responses come in random order, so that a chunk is a random part of them; those at its ends may lie in two.
    """
    lengths = responses["token_ids"].map(len).to_numpy(dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    response = np.searchsorted(first, rows, side="right") - 1
    position = rows - first[response]
    rank = torch.randperm(len(responses), generator=generator).numpy()
    order = np.lexsort((position, rank[response]))
    found = []
    for part in np.array_split(order, math.ceil(len(rows) / size)):
        used = np.unique(response[part])
        begin = np.cumsum(lengths[used]) - lengths[used]
        own = begin[np.searchsorted(used, response[part])] + position[part]
        found.append(Chunk(responses.iloc[used].reset_index(drop=True), np.sort(own)))
    return found


def sample_states(
    opened: OpenModel,
    responses: pd.DataFrame,
    rows: Int[np.ndarray, " row"],
    layers: Sequence[int],
    subject: str,
    memory: int | None = None,
    rank: Rank = ALONE,
) -> Float[torch.Tensor, "layer row d"]:
    """resid_post of these layers at the tokens `rows`, on the CPU, in the model's own dtype (which loses nothing).

    memory: bytes that reading may take besides them, as `stream_states` has it. rank: of several processes that call
    this together each reads its share of the batches for all, and gets its own of the layers. Raises NormprobeError as
    `stream_states` does, or if a state is NaN or infinite, naming the layer and `subject`.
    """
    splits = set(responses["split"])
    offsets, n = token_offsets(responses, splits)
    reader = np.empty(len(responses), dtype=np.int64)
    tokens = reading_plan(opened, responses, splits, memory).tokens
    for i, batch in enumerate(batch_plan(responses, splits, tokens)):
        reader[batch] = i % rank.total
    chosen = np.flatnonzero(offsets >= 0)
    reader_of_row = reader[chosen[np.searchsorted(offsets[chosen], rows, side="right") - 1]]
    shares = [np.flatnonzero(reader_of_row == number) for number in range(rank.total)]
    mine = rows[shares[rank.number]]
    place = np.full(n, -1)
    place[mine] = np.arange(len(mine))
    wanted = {layer: row for row, layer in enumerate(layers)}
    states = torch.empty((len(layers), len(mine), opened.identity.d_model), dtype=opened.model.dtype)

    def keep(piece: Piece) -> None:
        if piece.layer in wanted:
            check_finite(piece, subject)
            target = place[offsets[piece.response_index] + piece.position]
            kept = np.flatnonzero(target >= 0)
            here = piece.h[torch.from_numpy(kept).to(piece.h.device)]
            states[wanted[piece.layer], torch.from_numpy(target[kept])] = here.to("cpu", states.dtype)

    stream_states(opened, responses, splits, keep, memory, rank)
    return states if rank.total == 1 else exchange(states, shares, rank, opened.device)
