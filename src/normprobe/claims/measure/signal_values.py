"""The signals that claims compare: their names for a reader, and their values as a run stores them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from normprobe.claims.measure.measured_tokens import MeasuredTokens
from normprobe.runs.tables import Tables

NORM = "norm"
ENTROPIES = {
    "entropy_softmax": "hidden entropy, softmax(h)",
    "entropy_rms": "hidden entropy, unit scale",
    "entropy_energy": "hidden entropy, h²/‖h‖²",
    "output_entropy": "output entropy",
    "attention_entropy": "attention entropy",
}
# What a token has in no layer, and would know without opening the model or by reading its output alone.
LAYERLESS = {"surprisal": "surprisal", "position": "position"}
NAMES = {NORM: "norm", **ENTROPIES, **LAYERLESS}


def read_signal(
    tables: Tables,
    subject: str,
    signal: str,
    layers: Sequence[int],
    measured: MeasuredTokens,
    mask: Bool[np.ndarray, " token"],
) -> Float[np.ndarray, "#layer picked"] | None:
    """A signal of the masked tokens at these layers, float64; one row where it has no layers, None if not recorded."""
    if signal == "position":
        return measured.tokens["position"].to_numpy(dtype=float)[None, mask]
    values = tables.signals(subject).get(signal)
    if values is None:
        return None
    values = values[None] if signal in LAYERLESS else values[list(layers)]
    return measured.pick(values, mask).astype(float)
