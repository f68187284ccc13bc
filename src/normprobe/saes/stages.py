"""Filling the stages saes/ and reductions/ of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.ranks import ALONE, Rank
from normprobe.runs.atomic import atomic_write, atomic_write_json
from normprobe.runs.layout import FILES
from normprobe.runs.untrusted import read_json
from normprobe.saes.activations import HELD_OUT, SPLIT, paired_responses
from normprobe.saes.dictionary import (
    CONFIG,
    Dictionary,
    describe,
    layer_folder,
    layers_of,
    open_given,
    random_dictionary,
    save,
)
from normprobe.saes.exchange import connected
from normprobe.saes.held_out import held_out_quality
from normprobe.saes.reductions import n_selected, reduce_subject, work
from normprobe.saes.train_subject import SubjectTraining, check_batch_fits
from normprobe.saes.training import generator_for

GIVEN = "given.json"
RANDOM = "random"
TABLES = ("features", "sums", "pairs", "dictionary")


def fill_saes(
    folder: Path,
    subjects: Mapping[str, OpenModel],
    responses: pd.DataFrame,
    *,
    settings: SaeSettings,
    seed: int,
    memory: int | None = None,
    progress: bool = True,
    rank: Rank = ALONE,
) -> None:
    """Write a dictionary per subject and layer, a random one of the same shape per layer, and training.parquet.

    Resumes layer by layer, or from a checkpoint of all layers. `responses`: of their split "sae" dictionaries are
    trained, and judged on "select".
    Dictionaries that are given (see `normprobe.saes.dictionary`) are named in model/given.json; the controls are
    trained with their width and k. Without `settings.layers` every layer has one, or every layer of a given folder.
    memory: bytes above the weights that sampled states and reading may take together (None: as it is fastest).
    rank: of several processes that call this with the same folder, each trains its layers, and the first does the rest.

    Raises NormprobeError for layers that the model lacks, given dictionaries that do not fit, nothing to train on, or
    states that are not finite.
    """
    model, given = subjects["model"], settings.given
    chosen, settings = resolve_settings(settings, model, rank)
    trained = [subject for subject in subjects if subject != "model" or given is None]
    paired, held_out = (paired_responses(responses, of) if trained else responses for of in (SPLIT, HELD_OUT))
    with tqdm(
        total=len(trained) * len(rank.own(chosen)) * settings.n_samples,
        desc="train SAEs",
        unit="token",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        if given is not None and rank.leads:
            (folder / "model").mkdir(exist_ok=True)
            atomic_write_json(folder / "model" / GIVEN, {"given": given, "layers": chosen, "of": settings.of})
        with connected(rank):
            for subject in trained:
                opened, into = subjects[subject], folder / subject
                SubjectTraining(into, opened, paired, chosen, settings, seed, memory, rank).run(bar)
        if not rank.leads:
            return
        for layer in chosen:
            place = layer_folder(folder / RANDOM, layer)
            if not place.exists():
                metadata = describe(model.identity, layer, RANDOM, seed)
                drawn = generator_for(seed, RANDOM, layer)
                d, width, k = model.identity.d_model, settings.width, settings.k
                save(random_dictionary(d, width, k, metadata, drawn), place)
        judged = [
            _judged(folder, subject, subjects[subject], held_out, settings, seed, memory)
            for subject in trained
        ]
        FILES["training"].write(folder, pd.concat(judged, ignore_index=True))


def _judged(
    saes: Path,
    subject: str,
    opened: OpenModel,
    held_out: pd.DataFrame,
    settings: SaeSettings,
    seed: int,
    memory: int | None,
) -> pd.DataFrame:
    """The rows of training.parquet of one subject."""
    dictionaries = load_reader(saes, subject, opened)
    rows = held_out_quality(
        opened,
        held_out,
        dictionaries,
        subject,
        n=settings.n_samples,
        seed=seed,
        state_memory=settings.memory,
        memory=memory,
    )
    rows["training_tokens"] = [
        of_layer.sae.cfg.metadata.training_tokens for of_layer in dictionaries.values()
    ]
    return rows


def resolve_settings(
    settings: SaeSettings, model: OpenModel, rank: Rank = ALONE
) -> tuple[list[int], SaeSettings]:
    """The layers that dictionaries read, and the settings with the shape of given ones.

    Raises NormprobeError for layers that the model lacks, for given dictionaries that do not fit it, if the states of a
    batch do not fit into memory, and for more processes than layers.
    """
    chosen = settings.layers_of(model.identity.n_layers)
    if settings.given is not None:
        chosen = layers_of(settings.given, chosen)
        settings = _like_given(settings.given, chosen, model, settings)
    check_batch_fits(settings, model.identity, model.model.dtype, len(chosen))
    if rank.total > len(chosen):
        raise NormprobeError(
            f"expected no more processes than layers ({len(chosen)}), got {rank.total} of torchrun; start fewer"
        )
    return chosen, settings


def fill_reductions(
    folder: Path,
    subjects: Mapping[str, OpenModel],
    responses: pd.DataFrame,
    saes: Path,
    *,
    memory: int | None = None,
    progress: bool = True,
) -> None:
    """Write the tables features, sums, pairs and dictionary, and tokens.safetensors, for every reader.

    A reader is a subject with its own dictionaries out of `saes`, the finished stage, or "random": the model read with
    random ones. Resumes subject by subject. Raises NormprobeError as `reduce_subject` does, or if a dictionary is
    missing, damaged or not that subject's.
    """
    readers = []
    for subject, opened in subjects.items():
        names = [subject, RANDOM] if subject == "model" else [subject]
        readers += names
        if all((folder / f"{reader}.safetensors").exists() for reader in names):
            continue
        dictionaries = {reader: load_reader(saes, reader, opened) for reader in names}
        sizes = {}
        if subject != "model":  # which comes first
            sizes[subject] = n_selected(pd.read_parquet(folder / "model.features.parquet"))
        total = work(responses, len(dictionaries[subject]))
        with tqdm(
            total=total, desc=f"reduce {subject}", unit="token", unit_scale=True, disable=not progress
        ) as bar:
            reduced = reduce_subject(
                opened,
                responses,
                dictionaries,
                subject,
                sizes=sizes,
                memory=memory,
                on_tokens=bar.update,
            )
        for reader, tables in reduced.items():
            for name in TABLES:
                getattr(tables, name).to_parquet(folder / f"{reader}.{name}.parquet", index=False)
            # Last: where this file is, the reader is whole.
            with atomic_write(folder / f"{reader}.safetensors") as unfinished:
                save_file(tables.tokens, unfinished)
    _merge(folder, readers)


def shape_of(saes: Path) -> tuple[int, int]:
    """The width and k of a run's dictionaries, out of a finished saes/."""
    path = min((saes / RANDOM).iterdir()) / CONFIG
    content = read_json(path)
    return content["d_sae"], content["k"]


def load_reader(
    saes: Path, reader: str, opened: OpenModel, some: Sequence[int] | None = None
) -> dict[int, Dictionary]:
    """Layer → dictionary of a reader, out of a run's saes/: of all its layers, or of some.

    Raises NormprobeError if one is damaged or does not fit.
    """
    own = saes / reader
    if (own / GIVEN).exists():
        content = read_json(own / GIVEN)
        given, layers, of = content["given"], content["layers"], content["of"]
    else:
        given, layers, of = str(own), layers_of(str(own), range(opened.identity.n_layers)), None
    chosen = layers if some is None else some
    return {layer: open_given(given, opened.identity, layer, opened.device, of) for layer in chosen}


def _merge(folder: Path, readers: Sequence[str]) -> None:
    """One file per table out of one per reader and table."""
    for name in TABLES:
        tables = [pd.read_parquet(folder / f"{reader}.{name}.parquet") for reader in readers]
        FILES[name].write(folder, pd.concat(tables, ignore_index=True))
    tokens = {
        f"{reader}/{name}": values
        for reader in readers
        for name, values in load_file(folder / f"{reader}.safetensors").items()
    }
    FILES["z"].write(folder, tokens)
    for reader in readers:
        for path in folder.glob(f"{reader}.*"):
            path.unlink()


def _like_given(given: str, layers: Sequence[int], model: OpenModel, settings: SaeSettings) -> SaeSettings:
    """The settings with the width and k of the given dictionaries, all of which are opened and checked here."""
    shapes = set()
    for layer in layers:
        dictionary = open_given(given, model.identity, layer, torch.device("cpu"), settings.of)
        shapes.add((dictionary.width, getattr(dictionary.sae.cfg, "k", settings.k)))
    if len(shapes) > 1:
        raise NormprobeError(
            f"expected dictionaries of one width and k in {given}, got {sorted(shapes)}; leave layers out"
        )
    width, k = shapes.pop()
    return dataclasses.replace(settings, width=width, k=k)
