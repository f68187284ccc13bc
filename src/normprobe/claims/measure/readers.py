"""The readers, subjects and signals that claims compare: the names that the evidence shows, and which are controls."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from normprobe.runs.tables import Tables

READER_NAMES = {
    "model": "this model",
    "untrained": "untrained twin",
    "random": "random dictionary",
    "early": "early checkpoint",
}
MODEL, TWIN, RANDOM, EARLY = (READER_NAMES[name] for name in ("model", "untrained", "random", "early"))
FILLER = "filler instead of a thought"
"""The length control: the model in the mode `filler`."""
_RULES_OUT = {
    TWIN: "what the architecture gives without training, by depth and by token: a fresh network, same tokens",
    EARLY: "what training gives before it gives reasoning: a checkpoint that cannot reason yet, same tokens",
    RANDOM: "what any directions give: a dictionary of the same shape that nobody trained, same states",
    FILLER: "length: the thought replaced by as many dots",
}

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


def rules_out(*controls: str) -> dict[str, str]:
    """What each of these controls rules out, for `Claim.rules_out`."""
    return {name: _RULES_OUT[name] for name in controls}


def null_subjects(tables: Tables) -> list[str]:
    """Subjects that a claim must exceed: the untrained twin always, the early checkpoint where the run has one."""
    return ["untrained", *(["early"] if tables.has("signals/early") else [])]


def null_readers(tables: Tables) -> list[str]:
    """The same for claims that read dictionaries: also a random one of the same shape, reading the model itself."""
    return ["untrained", "random", *null_subjects(tables)[1:]]


AS_MANY = (
    "A control reads as many features as the model has reasoning features in a layer, those of largest t in the same "
    "test; where fewer fire it cannot be computed."
)
"""Part of the rule of every claim that reads features."""


def of_layers(tables: Tables, reader: str, column: str) -> Float[np.ndarray, " layer"]:
    """A column of the dictionary table, layer by layer."""
    rows = tables.dictionary[tables.dictionary["reader"] == reader].set_index("layer")
    return rows.loc[tables.layers(reader), column].to_numpy(dtype=np.float64)


def fewer_features(tables: Tables, reader: str) -> str:
    """Where a reader has fewer features to read than the model, in words; empty where it has as many."""
    layers = tables.layers(reader)
    own, asked = (of_layers(tables, name, "n_selected") for name in (reader, "model"))
    short = np.flatnonzero(own < asked)
    if not len(short):
        return ""
    worst = short[np.argmin(own[short] / asked[short])]
    return (
        f"in {len(short)} of {len(layers)} layers fewer of its features fire than the model has reasoning features "
        f"({int(own[worst])} of {int(asked[worst])} in layer {layers[worst]})"
    )


def readable(tables: Tables, reader: str) -> bool:
    """Whether the run has a reader's activations, of as many features as the model's, and the signals of the states
    that it read."""
    there = tables.has(f"signals/{subject_of(reader)}") and tables.has(f"z/{reader}")
    return there and not fewer_features(tables, reader)


def unread(tables: Tables) -> dict[str, str]:
    """Why each null reader that has dictionaries cannot be a control, by its name in the evidence."""
    readers = [reader for reader in null_readers(tables) if tables.layers(reader)]
    return {READER_NAMES[name]: why for name in readers if (why := fewer_features(tables, name))}


def subject_of(reader: str) -> str:
    """The subject whose states a reader's dictionary reads."""
    return "model" if reader == "random" else reader
