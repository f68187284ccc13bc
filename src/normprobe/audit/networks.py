"""What an audit reads, the networks that read it, and the run directory made of several networks' readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from normprobe.config import SaeSettings, Study
from normprobe.models.model import OpenModel
from normprobe.models.open import open_for
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables
from normprobe.saes.activations import draw_tokens, paired_responses, sample_states
from normprobe.saes.dictionary import Dictionary, describe, random_dictionary
from normprobe.saes.reductions import Reduced, n_selected, reduce_subject
from normprobe.saes.training import generator_for, train_sae, train_together
from normprobe.tracing.trace import Signals, replay, sinks

if TYPE_CHECKING:
    from sae_lens import SAE, TopKTrainingSAE

OWN, RANDOM = "own", "random"
Dictionaries = Mapping[int, Dictionary]
"""Layer → dictionary."""


@dataclass(frozen=True)
class Passage:
    """What all networks of an audit read: some problems of a finished run, with the responses its model wrote.

    `tokens` is their part of traces/tokens.parquet, in the order of `responses`. memory and lens_tokens: how they are
    read, as `replay` has it.
    """

    problems: pd.DataFrame
    responses: pd.DataFrame
    tokens: pd.DataFrame
    memory: int | None = None
    lens_tokens: int | None = None

    @classmethod
    def of(cls, inputs: AuditInputs, n_select: int, n_measure: int, n_sae: int = 0) -> Passage:
        """The first problems of each split of a run, balanced as the run's table is."""
        tables, study = inputs.tables, inputs.study
        sizes = {"select": n_select, "measure": n_measure, "sae": n_sae}
        kept = [
            problems.head(sizes[str(split)])
            for split, problems in tables.problems.groupby("split", sort=False)
        ]
        problems = pd.concat(kept).sort_index().reset_index(drop=True)
        names = set(problems["problem_id"])
        responses, tokens = (
            table[table["problem_id"].isin(names)] for table in (tables.responses, tables.tokens)
        )
        responses, tokens = responses.reset_index(drop=True), tokens.reset_index(drop=True)
        return cls(problems, responses, tokens, study.memory, study.tracing.lens_tokens)


@dataclass(frozen=True)
class AuditInputs:
    """What an audit reads: a finished run, its study, and the width and k of its dictionaries."""

    run: Path
    study: Study
    width: int
    k: int

    @property
    def tables(self) -> Tables:
        return Tables(self.run)

    @property
    def layers(self) -> list[int]:
        return self.tables.layers("model")

    def open(self) -> OpenModel:
        """Open the run's model in this process."""
        return open_for(self.study.model, self.study.thinking)

    @property
    def saes(self) -> SaeSettings:
        """Settings of the dictionaries that an audit trains: the shape of the run's own."""
        return replace(self.study.saes, width=self.width, k=self.k, n_samples=self.study.audit.sae_samples)

    def whole(self, n_sae: int) -> Passage:
        """As many problems as the run has: power is asked at its own size."""
        n = self.tables.problems["split"].value_counts()
        return Passage.of(self, int(n["select"]), int(n["measure"]), n_sae)


@dataclass(frozen=True)
class Reading:
    """One network's signals [layer, token], and what its own and a random dictionary make of its states.

    reduced: "own", "random", and its own dictionaries again under the name of each network that it is a control of.
    """

    signals: Signals
    reduced: dict[str, Reduced]

    @property
    def sizes(self) -> list[int]:
        """How many reasoning features its own dictionaries have, by layer."""
        return n_selected(self.reduced[OWN].features)

    def control_of(self, name: str) -> Reading:
        """The reading with as many reasoning features as that network has."""
        return Reading(self.signals, {OWN: self.reduced[name]})


def read(
    opened: OpenModel,
    passage: Passage,
    own: Dictionaries,
    random: Dictionaries,
    sizes: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Reading:
    """Replay the passage through a network, as a run's stages traces/ and reductions/ do.

    sizes: by a name of each network that it is a control of, how many reasoning features that one has by layer.
    """
    responses, memory = passage.responses, passage.memory
    signals = replay(opened, responses, memory=memory, lens_tokens=passage.lens_tokens, progress=False)
    dictionaries = {OWN: own, RANDOM: random} | dict.fromkeys(sizes, own)
    reduced = reduce_subject(opened, responses, dictionaries, "model", sizes=sizes, memory=memory)
    return Reading(signals, reduced)


def random_dictionaries(
    opened: OpenModel, layers: Sequence[int], settings: SaeSettings, *key: object
) -> Dictionaries:
    """One random dictionary per layer, drawn from `key`."""
    identity, width, k = opened.identity, settings.width, settings.k

    def drawn(layer: int) -> Dictionary:
        metadata, generator = describe(identity, layer, RANDOM, 0), generator_for(*key, layer)
        return Dictionary.of(random_dictionary(identity.d_model, width, k, metadata, generator))

    return {layer: drawn(layer) for layer in layers}


def trained_dictionaries(
    opened: OpenModel, passage: Passage, layers: Sequence[int], settings: SaeSettings, *key: object
) -> Dictionaries:
    """One dictionary per layer, trained on the network's states at the passage's split "sae", as a run's are."""
    responses = paired_responses(passage.responses)
    rows = draw_tokens(responses, settings.n_samples, generator_for(*key, "tokens"))
    states = sample_states(opened, responses, rows, layers, OWN, passage.memory)
    metadata = [describe(opened.identity, layer, OWN, 0) for layer in layers]
    generators = [generator_for(*key, layer) for layer in layers]
    saes: Sequence[SAE[Any] | TopKTrainingSAE]
    if settings.trainer == "sae_lens":
        of_layers = zip(states, metadata, generators, strict=True)
        saes = [train_sae(h, settings, m, generator, opened.device) for h, m, generator in of_layers]
    else:
        order, sizes = generator_for(*key, "order"), [len(rows)]
        saes = train_together(lambda _: states, sizes, settings, metadata, generators, order, opened.device)
    return {layer: Dictionary.of(sae) for layer, sae in zip(layers, saes, strict=True)}


def write_tables(
    folder: Path,
    passage: Passage,
    readings: Mapping[str, Reading],
    suppression: pd.DataFrame | None = None,
) -> Tables:
    """A run directory, as far as claims read one, in which each subject ("model", "untrained", "early") is a reading.

    The reader "random" is the random dictionary of the reading "model".
    """

    def write(name: str, content: Any) -> None:
        file = FILES[name]
        (folder / file.stage).mkdir(parents=True, exist_ok=True)
        file.write(folder / file.stage, content)

    position = passage.tokens["position"].to_numpy()
    write("problems", passage.problems)
    write("responses", passage.responses)
    write("tokens", passage.tokens.assign(sink=sinks(readings["model"].signals["norm"], position)))
    for subject, reading in readings.items():
        write(f"signals/{subject}", reading.signals)
    readers = {subject: reading.reduced[OWN] for subject, reading in readings.items()}
    readers[RANDOM] = readings["model"].reduced[RANDOM]
    for name in ("features", "sums", "pairs", "dictionary"):
        parts = [getattr(reduced, name).assign(reader=reader) for reader, reduced in readers.items()]
        write(name, pd.concat(parts, ignore_index=True))
    write("z", {f"{reader}/{name}": z for reader, r in readers.items() for name, z in r.tokens.items()})
    if suppression is not None:
        write("suppression", suppression)
    return Tables(folder)
