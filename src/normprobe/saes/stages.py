"""The two stages of a run that this folder fills: saes/ and reductions/."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from normprobe.errors import NormprobeError
from normprobe.models.open import OpenModel
from normprobe.runs import Run, atomic_write, atomic_write_json
from normprobe.saes.dictionary import (
    Dictionary,
    hook_name,
    load_dictionary,
    load_published,
    require_fit,
    save_random,
)
from normprobe.saes.reductions import reduce_arm
from normprobe.saes.training import SaeSettings, collect, train_layer, training_tokens

GIVEN = "given.json"
TABLES = ("features", "sums", "pairs", "dictionary")


def stage_saes(
    run: Run,
    sources: Mapping[str, OpenModel],
    config: Mapping[str, Any],
    *,
    layers: Sequence[int] | None = None,
    given: str | None = None,
    settings: SaeSettings,
    seed: int,
    progress: bool = True,
) -> None:
    """Fill saes/: a folder per source and layer, a random dictionary of the same shape, and training.parquet.

    `given` names dictionaries to read the model with instead of training them: a directory with `layer_NN` folders in
    SAELens's format, or a published release as `RELEASE:ID`, where ID holds `{layer}`. The controls are trained all the
    same, with the given width. Nothing to do if the stage is complete with `config`; resumes layer by layer.

    Raises NormprobeError for layers that the model lacks, dictionaries that do not fit, or activations that are not finite.
    """
    if run.stage_complete("saes", config):
        return
    model = sources["model"]
    chosen = _layers(layers, model.identity.n_layers)
    responses = pd.read_parquet(run["responses"] / "responses.parquet")
    with run.stage("saes", config) as folder:
        if given is not None:
            first = [_given(given, layer, model) for layer in chosen][0]
            settings = dataclasses.replace(
                settings, width=first.width, k=getattr(first.sae.cfg, "k", settings.k)
            )
            (folder / "model").mkdir(exist_ok=True)
            atomic_write_json(folder / "model" / GIVEN, {"given": given, "layers": chosen})
        kept = training_tokens(responses, settings.max_tokens, np.random.default_rng([seed, 0]))
        trained = [source for source in sources if source != "model" or given is None]
        with tqdm(
            total=len(trained) * len(chosen), desc="train SAEs", unit="SAE", disable=not progress
        ) as bar:
            for source in trained:
                _train_source(folder / source, sources[source], responses, kept, chosen, settings, seed, bar)
        for layer in chosen:
            generator = torch.Generator().manual_seed(seed * 1000 + layer)
            metadata = _metadata(model, layer, "random control")
            path = folder / "random" / f"layer_{layer:02d}"
            save_random(path, model.identity.d_model, settings.width, settings.k, generator, metadata)
        rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*/layer_*/quality.json"))]
        with atomic_write(folder / "training.parquet") as unfinished:
            pd.DataFrame(rows).to_parquet(unfinished, index=False)


def _train_source(
    folder: Path,
    opened: OpenModel,
    responses: pd.DataFrame,
    kept: np.ndarray,
    layers: Sequence[int],
    settings: SaeSettings,
    seed: int,
    bar: Any,
) -> None:
    """Every missing layer of one source; a layer's folder is there only when it is whole."""
    missing = [layer for layer in layers if not (folder / f"layer_{layer:02d}").exists()]
    bar.update(len(layers) - len(missing))
    if not missing:
        return
    states = collect(opened, responses, kept)
    for layer in missing:
        partial = folder / f"layer_{layer:02d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        generator = torch.Generator().manual_seed(seed * 1000 + layer)
        metadata = _metadata(opened, layer, folder.name)
        with contextlib.redirect_stderr(io.StringIO()):  # SAELens's own bar: one per layer is noise
            quality = train_layer(states[layer], partial, settings, generator, metadata)
        row = {"source": folder.name, "layer": layer, **quality, "tokens": int(states.shape[1])}
        atomic_write_json(partial / "quality.json", row)
        partial.rename(folder / f"layer_{layer:02d}")
        bar.update()


def stage_reductions(
    run: Run, sources: Mapping[str, OpenModel], config: Mapping[str, Any], *, progress: bool = True
) -> None:
    """Fill reductions/: the tables features, sums, pairs and dictionary, and tokens.safetensors, for every arm.

    An arm is a source with its own dictionary, or "random": the model read with a random dictionary. Nothing to do if
    the stage is complete with `config`; resumes arm by arm. Raises NormprobeError if responses have several samples.
    """
    if run.stage_complete("reductions", config):
        return
    responses = pd.read_parquet(run["responses"] / "responses.parquet")
    if responses["sample"].max() > 0:
        raise NormprobeError(
            "expected one sample per problem and mode, got several; run the study with samples = 1"
        )
    with run.stage("reductions", config) as folder:
        arms = [*sources, "random"]
        for arm in arms:
            if not (folder / f"{arm}.safetensors").exists():
                opened = sources["model" if arm == "random" else arm]
                dictionaries = load_arm(run["saes"], arm, opened)
                reduction = reduce_arm(arm, opened, responses, dictionaries, progress=progress)
                for name in TABLES:
                    getattr(reduction, name).to_parquet(folder / f"{arm}.{name}.parquet", index=False)
                with atomic_write(
                    folder / f"{arm}.safetensors"
                ) as unfinished:  # last: it says that the arm is whole
                    save_file(reduction.tokens, unfinished)
        for name in TABLES:
            paths = [folder / f"{arm}.{name}.parquet" for arm in arms]
            pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True).to_parquet(
                folder / f"{name}.parquet", index=False
            )
        tensors = {
            f"{arm}/{name}": values
            for arm in arms
            for name, values in load_file(folder / f"{arm}.safetensors").items()
        }
        save_file(tensors, folder / "tokens.safetensors")
        for arm in arms:
            for path in folder.glob(f"{arm}.*"):
                path.unlink()


def load_arm(saes: Path, arm: str, opened: OpenModel) -> dict[int, Dictionary]:
    """Layer → dictionary of an arm of a run's saes/. Raises NormprobeError if one does not fit the opened model."""
    given = saes / arm / GIVEN
    if given.exists():
        content = json.loads(given.read_text())
        return {layer: _given(content["given"], layer, opened) for layer in content["layers"]}
    dictionaries = {}
    for path in sorted((saes / arm).glob("layer_*")):
        layer = int(path.name.removeprefix("layer_"))
        dictionaries[layer] = load_dictionary(path, opened.device)
        require_fit(dictionaries[layer], layer=layer, d=opened.identity.d_model, model=None, where=str(path))
    return dictionaries


def _given(given: str, layer: int, opened: OpenModel) -> Dictionary:
    """One of the user's dictionaries, checked against the model."""
    directory = Path(given).expanduser()
    if directory.is_dir():
        dictionary = load_dictionary(directory / f"layer_{layer:02d}", opened.device)
    elif ":" in given:
        release, _, pattern = given.partition(":")
        dictionary = load_published(release, pattern.format(layer=layer), opened.device)
    else:
        raise NormprobeError(
            f"expected --saes as a directory with layer_NN folders or RELEASE:ID with {{layer}} in it, got {given!r}; check it"
        )
    where = f"layer {layer} of {opened.identity.name}"
    require_fit(dictionary, layer=layer, d=opened.identity.d_model, model=opened.identity.name, where=where)
    return dictionary


def _layers(layers: Sequence[int] | None, depth: int) -> list[int]:
    if layers is None:
        return list(range(depth))
    if absent := [layer for layer in layers if not 0 <= layer < depth]:
        raise NormprobeError(
            f"expected layers 0…{depth - 1}, got {', '.join(map(str, absent))}; correct --layers"
        )
    return sorted(set(layers))


def _metadata(opened: OpenModel, layer: int, source: str) -> dict[str, Any]:
    identity = opened.identity
    return {
        "model_name": identity.name,
        "hook_name": hook_name(layer),
        "model_weights": identity.weights,
        "normprobe_source": source,
    }
