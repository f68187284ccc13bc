"""The readers, subjects and signals that claims compare: the names that the evidence shows, and which are controls."""

from __future__ import annotations

from normprobe.runs.tables import Tables

READER_NAMES = {
    "model": "this model",
    "untrained": "untrained twin",
    "random": "random dictionary",
    "early": "early checkpoint",
}
MODEL, TWIN = READER_NAMES["model"], READER_NAMES["untrained"]
FILLER = "filler instead of a thought"
"""The length control: the model in the mode `filler`."""

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


def null_subjects(tables: Tables) -> list[str]:
    """Subjects that a claim must exceed: the untrained twin always, the early checkpoint where the run has one."""
    return ["untrained", *(["early"] if tables.has("signals/early") else [])]


def null_readers(tables: Tables) -> list[str]:
    """The same for claims that read dictionaries: also a random one of the same shape, reading the model itself."""
    return ["untrained", "random", *null_subjects(tables)[1:]]


def readable(tables: Tables, reader: str) -> bool:
    """Whether the run has a reader's activations and the signals of the states that it read."""
    return tables.has(f"signals/{subject_of(reader)}") and tables.has(f"z/{reader}")


def subject_of(reader: str) -> str:
    """The subject whose states a reader's dictionary reads."""
    return "model" if reader == "random" else reader
