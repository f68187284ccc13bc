"""The signals of texts as one tidy table: `normprobe.trace(model, texts)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from torch import nn
from transformers import PreTrainedTokenizerBase

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import open_model
from normprobe.tracing.trace import TRACED, Signals, replay
from normprobe.tracing.trace import trace as trace_responses

Model = str | Path | OpenModel | nn.Module


@overload
def trace(
    model: Model,
    texts: str | Sequence[str | Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **options: Any,
) -> pd.DataFrame: ...
@overload
def trace(
    model: Model, texts: pd.DataFrame, problems: pd.DataFrame, **options: Any
) -> tuple[pd.DataFrame, Signals]: ...
def trace(
    model: Model,
    texts: str | Sequence[str | Sequence[int]] | pd.DataFrame,
    problems: pd.DataFrame | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **options: Any,
) -> pd.DataFrame | tuple[pd.DataFrame, Signals]:
    """The signals of a model that reads texts: one row per text, token and layer, in this order.

    model: whatever `open_model` takes, also a Transformers model with its `tokenizer`, or what `open_model` gave.
    texts: as the model is to read them, each as text or as token ids; a whole prompt with its answer, for example.
    options: as `replay` takes them (memory, lens_tokens, progress).
    Columns: `text` (its number), `position`, `token_id`, `token` (what it adds to the text), `segment` (thought, answer
    or other, by the model's marks; of a conversation the last turn's), `layer`, then the signals: `norm` (‖h‖₂ after
    the layer), entropies in nats, and `surprisal` of the token (nats, the same in each layer).

    With a table of responses for `texts`, and their `problems`, it is `normprobe.tracing.trace.trace`.
    Raises NormprobeError for no text, one without tokens, or one longer than the model's context.
    """
    opened = model if isinstance(model, OpenModel) else open_model(model, tokenizer)
    if isinstance(texts, pd.DataFrame):
        if problems is None:
            raise NormprobeError("expected responses with their problems, got no problems; give both tables")
        return trace_responses(opened, texts, problems, **options)
    given = [texts] if isinstance(texts, str) else texts
    ids = [_encode(opened, text) if isinstance(text, str) else list(text) for text in given]
    _check(ids, opened.context)
    values = replay(opened, pd.DataFrame({"token_ids": ids, "split": TRACED[-1]}), **options)
    tokens = pd.concat([_tokens(opened, number, one) for number, one in enumerate(ids)], ignore_index=True)
    n_layers = len(values["norm"])
    table = tokens.loc[tokens.index.repeat(n_layers)].reset_index(drop=True)
    table["layer"] = np.tile(np.arange(n_layers), len(tokens))
    return table.assign(
        **{
            name: value.T.ravel() if value.ndim == 2 else value.repeat(n_layers)
            for name, value in values.items()
        }
    )


def _check(texts: Sequence[Sequence[int]], context: int | None) -> None:
    if not texts:
        raise NormprobeError("expected texts to read, got none; give one or more")
    for number, ids in enumerate(texts):
        if not ids or (context is not None and len(ids) > context):
            most = "" if context is None else f" to {context}"
            raise NormprobeError(
                f"expected texts of 1{most or ' or more'} tokens, got {len(ids)} in text {number}; "
                f"{'shorten it' if ids else 'leave it out'}"
            )


def _encode(opened: OpenModel, text: str) -> list[int]:
    """The tokens of a text, special ones added unless a chat template has begun it with them."""
    begins = opened.tokenizer.bos_token
    begun = isinstance(begins, str) and text.startswith(begins)
    return list(opened.tokenizer(text, add_special_tokens=not begun)["input_ids"])


def _tokens(opened: OpenModel, number: int, ids: list[int]) -> pd.DataFrame:
    pieces, ends = opened.chat.pieces(ids), opened.chat.eos_ids
    # An end token that text follows ends another's turn.
    turns = [i + 1 for i, token in enumerate(ids) if token in ends and "".join(pieces[i + 1 :]).strip()]
    segment, spans = (
        np.full(len(ids), "other", dtype=object),
        opened.chat.spans(ids, turns[-1] if turns else 0),
    )
    for name, (start, end) in (("thought", spans.thought), ("answer", spans.answer)):
        if start >= 0:
            segment[start:end] = name
    return pd.DataFrame(
        {
            "text": number,
            "position": np.arange(len(ids)),
            "token_id": ids,
            "token": pieces,
            "segment": segment,
        }
    )
