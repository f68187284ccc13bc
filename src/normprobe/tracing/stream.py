"""Read stored responses with a model: the stream of keyed sites that tracing and the dictionaries consume."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.sites import visit_sites
from normprobe.ranks import ALONE, Rank
from normprobe.reading_plan import RESPONSES_AT_ONCE, ReadingPlan, Shape


@dataclass(frozen=True)
class Piece:
    """The states of one layer at n tokens of some responses: response by response, positions ascending.

    `h[i]` is resid_post of `layer`, in float32 and where the layer computes, at the token `position[i]` (0-based in the
    whole sequence, prompt included) of the response `responses.iloc[response_index[i]]`. `valid` tells tokens from
    padding in the forward pass that they come from, [row, position]; padding is not in `h`.
    """

    layer: int
    h: Float[torch.Tensor, "n d"]
    response_index: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]
    valid: Bool[torch.Tensor, "row position"]


Visit = Callable[[Piece], Float[torch.Tensor, "n d"] | None]


def stream_states(
    opened: OpenModel,
    responses: pd.DataFrame,
    splits: Collection[str],
    visit: Visit,
    memory: int | None = None,
    rank: Rank = ALONE,
) -> None:
    """Call `visit` with every layer at every token of the responses in `splits`, where forward passes come past it.

    Nothing outlives a layer unless `visit` keeps it. States that it returns take the place of the piece's in what the
    layers above read. Responses of like length go through together in batches, a long
    one alone and in chunks over a cache, as `ReadingPlan` fits them into `memory` bytes (None: as it is fastest); the
    plan depends on nothing but the table, the model's shape and this. Pieces come pass by pass, layers ascending, and
    `response_index` counts the rows of `responses` as given, before the selection by split. Of several processes each
    reads the batches that are its `rank`'s own.

    Raises NormprobeError if the memory does not suffice, or as `visit_sites` does.
    """
    tokens = reading_plan(opened, responses, splits, memory).tokens
    for rows in rank.own(batch_plan(responses, splits, tokens)):
        ids, mask = pad(responses["token_ids"].iloc[rows].tolist())
        _read(opened, rows, torch.from_numpy(ids), torch.from_numpy(mask), tokens, visit)


@torch.no_grad()  # not inference_mode: SAEs train on these
def _read(
    opened: OpenModel,
    rows: Int[np.ndarray, " row"],
    ids: Int[torch.Tensor, "row position"],
    mask: Int[torch.Tensor, "row position"],
    tokens: int,
    visit: Visit,
) -> None:
    """One batch; of a single response that has more tokens than `tokens`, chunk by chunk."""
    size = max(tokens // len(rows), 1)
    chunked, cache = ids.shape[1] > size, None
    for start in range(0, ids.shape[1], size):
        part = slice(start, start + size)
        with visit_sites(opened, _pieces(rows, mask[:, part].bool(), start, visit)):
            # The base model leaves out the unembedding, which nobody reads here.
            output = opened.model.base_model(
                input_ids=ids[:, part].to(opened.device),
                attention_mask=mask[:, : part.stop].to(opened.device),
                past_key_values=cache,
                use_cache=chunked,
            )
        cache = output.past_key_values if chunked else None


def _pieces(
    rows: Int[np.ndarray, " row"],
    valid: Bool[torch.Tensor, "row position"],
    start: int,
    visit: Visit,
) -> Callable[[int, torch.Tensor], torch.Tensor | None]:
    """Make pieces of the sites of one forward pass over the positions from `start` on."""
    row, position = (index.numpy() for index in valid.nonzero(as_tuple=True))
    keys = (rows[row], start + position, valid)

    def visit_layer(layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
        tokens = valid.to(hidden.device)
        states = visit(Piece(layer, hidden[tokens].float(), *keys))
        if states is None:
            return None
        replaced = hidden.clone()
        replaced[tokens] = states.to(hidden)
        return replaced

    return visit_layer


def reading_plan(
    opened: OpenModel, responses: pd.DataFrame, splits: Collection[str], memory: int | None = None
) -> ReadingPlan:
    """The sizes in which `stream_states` reads. Raises NormprobeError if the memory does not suffice."""
    lengths = responses["token_ids"][responses["split"].isin(list(splits))].map(len)
    shape = Shape.of(opened.model.config.to_dict(), opened.model.dtype.itemsize)
    return ReadingPlan.of(shape, int(lengths.max()) if len(lengths) else 0, opened.device.type, memory)


def check_finite(piece: Piece, subject: str) -> None:
    """Raises NormprobeError if a state is NaN or infinite, naming its layer and `subject`."""
    # A sum over squares is NaN or infinite if any entry is: one reduction instead of a mask as large as the states.
    if not torch.linalg.vector_norm(piece.h).isfinite():
        raise NormprobeError(
            f"expected finite activations, got NaN or infinity in layer {piece.layer} of subject '{subject}'; "
            "check the weights, or load them with dtype float32"
        )


def batch_plan(
    responses: pd.DataFrame, splits: Collection[str], tokens: int
) -> list[Int[np.ndarray, " row"]]:
    """Row numbers of `responses` in each batch: the responses of `splits` by length, then in table order, as many as
    have at most `tokens` tokens together when padded to the longest of them: at least one, at most 64."""
    chosen = np.flatnonzero(responses["split"].isin(list(splits)))
    lengths = responses["token_ids"].iloc[chosen].map(len).to_numpy(dtype=np.int64)
    batches: list[list[int]] = []
    for i in np.argsort(lengths, kind="stable"):
        size = len(batches[-1]) + 1 if batches else 1
        if not batches or size > RESPONSES_AT_ONCE or size * lengths[i] > tokens:
            batches.append([])
        batches[-1].append(int(chosen[i]))
    return [np.array(batch) for batch in batches]


def pad(
    sequences: Sequence[Sequence[int] | np.ndarray],
) -> tuple[Int[np.ndarray, "row position"], Int[np.ndarray, "row position"]]:
    """Token ids padded on the right with 0, and the attention mask (1 = token). Padding on the right, because causal
    attention then never sees it and positions count from 0 without further ado."""
    lengths = np.array([len(ids) for ids in sequences])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate(sequences)
    return ids, mask.astype(np.int64)


def token_offsets(
    responses: pd.DataFrame, splits: Collection[str]
) -> tuple[Int[np.ndarray, " response"], int]:
    """Where each response's tokens start in the token table of `splits` (-1: not in it), and the table's length.

    With `splits` select and measure, token i of a batch is the row `offsets[response_index[i]] + position[i]` of
    traces/tokens.parquet.
    """
    chosen = responses["split"].isin(list(splits)).to_numpy()
    lengths = np.where(chosen, responses["token_ids"].map(len), 0)
    offsets = np.cumsum(lengths) - lengths
    return np.where(chosen, offsets, -1), int(lengths.sum())
