"""The norms of texts that are read once, where no other signal is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.tracing import signals
from normprobe.tracing.stream import Piece, check_finite, stream_states

_SPLIT = "read"


def read_norms(
    opened: OpenModel, texts: Sequence[Sequence[int]]
) -> list[Float[np.ndarray, "layer position"]]:
    """‖h‖₂ after every layer at every token of each text, given as token ids. The model reads plainly, no policy acts.

    Raises NormprobeError if a norm is NaN or infinite.
    """
    norms = [np.zeros((len(opened.blocks), len(ids)), dtype=np.float32) for ids in texts]

    def visit(piece: Piece) -> None:
        check_finite(piece, "model")
        norm = signals.norm(piece.h).cpu().numpy()
        for text in np.unique(piece.response_index):
            own = piece.response_index == text
            norms[text][piece.layer, piece.position[own]] = norm[own]

    stream_states(opened, pd.DataFrame({"token_ids": [*map(list, texts)], "split": _SPLIT}), [_SPLIT], visit)
    return norms


def shown_layer(asked: int | None, n_layers: int) -> int:
    """The layer whose norms are shown: by default the last but one, since the last block's never reach the logits.

    Raises NormprobeError if the model has no such layer.
    """
    if asked is not None and not 0 <= asked < n_layers:
        raise NormprobeError(f"expected a layer of 0…{n_layers - 1}, got {asked}; choose one of these")
    return max(n_layers - 2, 0) if asked is None else asked
