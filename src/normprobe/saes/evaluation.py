"""Filling the stage dictionaries/ of a run: how good its dictionaries are on held-out states, and how stable."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from normprobe.config import DictionarySettings, SaeSettings
from normprobe.models.model import OpenModel
from normprobe.ranks import ALONE
from normprobe.runs.jobs import TABLE, JobRunner
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables
from normprobe.saes.activations import paired_responses
from normprobe.saes.splicing import MeasuredResponses, Splicing
from normprobe.saes.stability import matched_cosines
from normprobe.saes.stages import RANDOM, load_reader
from normprobe.saes.train_subject import SubjectTraining

AGAIN = "model_again_"
READERS = {"model": ("model", RANDOM), "untrained": ("untrained",)}
"""Subject → who reads it: its own dictionaries, and random ones."""


def fill_dictionaries(
    folder: Path,
    subjects: Mapping[str, OpenModel],
    tables: Tables,
    saes: Path,
    *,
    settings: DictionarySettings,
    training: SaeSettings,
    seed: int,
    memory: int | None = None,
    progress: bool = True,
) -> None:
    """Write fidelity.parquet and stability.parquet into `folder`, and the dictionaries that were trained again.

    saes: the finished stage. training: how its dictionaries were trained; the model's are trained again on the same
    tokens, from other first atoms and in another order (given ones are not). Resumes layer by layer.
    Raises NormprobeError if a state is not finite, or a dictionary is missing, damaged or not of this model.
    """
    layers, model = tables.layers("model"), subjects["model"]
    again = [] if training.given else [f"{AGAIN}{number}" for number in range(1, settings.retrained + 1)]
    with tqdm(
        total=len(again) * len(layers) * training.n_samples,
        desc="train again",
        unit="token",
        unit_scale=True,
        disable=not progress or not again,
    ) as bar:
        for name in again:
            responses = paired_responses(tables.responses)
            SubjectTraining(folder / name, model, responses, layers, training, seed, memory, ALONE).run(bar)
    parts, held_out = (
        folder / "parts",
        MeasuredResponses.of(tables.responses, tables.tokens, settings.problems),
    )
    evaluations = [
        _Evaluation(Splicing(subjects[subject], held_out, subject, memory), saes, readers, layers)
        for subject, readers in READERS.items()
    ]
    compared = {RANDOM: saes / RANDOM} | {name: folder / name for name in again}
    fidelity: dict[str, Callable[[], pd.DataFrame]] = {
        f"{evaluation.splicing.subject} layer {layer}": partial(evaluation.measure, layer)
        for evaluation in evaluations
        for layer in layers
    }
    stability: dict[str, Callable[[], pd.DataFrame]] = {
        f"atoms of layer {layer}": partial(_stability, model, tables, saes, compared, layer)
        for layer in layers
    }
    with JobRunner(
        parts, TABLE, label="dictionaries", total=3 * len(layers), unit="layer", progress=progress
    ) as runner:
        FILES["fidelity"].write(folder, pd.concat(runner.run(fidelity).values(), ignore_index=True))
        FILES["stability"].write(folder, pd.concat(runner.run(stability).values(), ignore_index=True))
    shutil.rmtree(parts)


@dataclass(frozen=True)
class _Evaluation:
    """One subject's readers, layer by layer."""

    splicing: Splicing
    saes: Path
    readers: Sequence[str]
    layers: Sequence[int]

    @cached_property
    def _means(self) -> dict[int, torch.Tensor]:
        return self.splicing.site_means(self.layers)

    def measure(self, layer: int) -> pd.DataFrame:
        dictionaries = {
            reader: load_reader(self.saes, reader, self.splicing.opened, [layer])[layer]
            for reader in self.readers
        }
        return self.splicing.measure(layer, dictionaries, self._means[layer])


def _stability(
    model: OpenModel, tables: Tables, saes: Path, compared: Mapping[str, Path], layer: int
) -> pd.DataFrame:
    """One row per feature of the model's dictionary of one layer and dictionary that it is compared with."""
    own = load_reader(saes, "model", model, [layer])[layer]
    features = tables.features
    rows = features[(features["reader"] == "model") & (features["layer"] == layer)].sort_values("feature")
    found = []
    for name, place in compared.items():
        other = load_reader(place.parent, place.name, model, [layer])[layer]
        columns = {"compared_with": name, "layer": layer, "cosine": matched_cosines(own, other)}
        found.append(rows[["feature", "selected"]].assign(**columns))
    return pd.concat(found, ignore_index=True)
