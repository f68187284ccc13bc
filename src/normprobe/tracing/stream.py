"""Read stored responses with a model, batch by batch: the stream of keyed sites that tracing and the SAEs consume."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.sites import record_sites


@dataclass(frozen=True)
class Batch:
    """The sites of some responses, padding removed: n tokens, response by response, positions ascending.

    `states[l, i]` is resid_post of layer l, in float32 on the model's device, at the token `position[i]` (0-based in
    the whole sequence, prompt included) of the response `responses.iloc[response_index[i]]`.
    """

    states: Float[torch.Tensor, "layer n d"]
    response_index: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]


def stream_states(
    opened: OpenModel, responses: pd.DataFrame, splits: Collection[str], batch_size: int = 64
) -> Iterator[Batch]:
    """Every site of every token of the responses in `splits`, in the fixed order of `batch_plan`.

    `response_index` counts the rows of `responses` as given, before the selection by split. A batch holds layers ×
    tokens × d floats: 49 MB for 64 responses of 150 tokens, 10 layers and d 128.
    """
    for rows in batch_plan(responses, splits, batch_size):
        ids, mask = pad(responses["token_ids"].iloc[rows].tolist())
        row, position = np.nonzero(mask)
        # No name for the batch: the next one is made after this one is gone.
        yield Batch(_states(opened, torch.from_numpy(ids), torch.from_numpy(mask)), rows[row], position)


@torch.no_grad()  # not inference_mode: SAEs train on these
def _states(
    opened: OpenModel, ids: Int[torch.Tensor, "row position"], mask: Int[torch.Tensor, "row position"]
) -> Float[torch.Tensor, "layer n d"]:
    mask = mask.to(opened.device)
    with record_sites(opened) as sites:
        # The base model leaves out the unembedding, which nobody reads here.
        opened.model.base_model(input_ids=ids.to(opened.device), attention_mask=mask, use_cache=False)
        valid = mask.bool()
        return torch.stack([state[valid].float() for state in sites.states])


def check_finite(batch: Batch, layers: Sequence[int], subject: str) -> None:
    """Raises NormprobeError if a state of these layers is NaN or infinite, naming the first and `subject`."""
    # A sum over squares is NaN or infinite if any entry is: one reduction instead of a mask as large as the states.
    finite = torch.linalg.vector_norm(batch.states, dim=(1, 2)).isfinite().tolist()
    for layer in layers:
        if not finite[layer]:
            raise NormprobeError(
                f"expected finite activations, got NaN or infinity in layer {layer} of subject '{subject}'; "
                "check the weights, or load them with dtype float32"
            )


def batch_plan(
    responses: pd.DataFrame, splits: Collection[str], batch_size: int
) -> list[Int[np.ndarray, " row"]]:
    """Row numbers of `responses` in each batch: the responses of `splits` by length, then in table order.

    The plan depends on nothing but the table, so a resumed run reads the same batches.
    """
    chosen = np.flatnonzero(responses["split"].isin(list(splits)))
    lengths = responses["token_ids"].iloc[chosen].map(len).to_numpy(dtype=np.int64)
    ordered = chosen[np.argsort(lengths, kind="stable")]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


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
