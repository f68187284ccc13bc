"""Train the dictionaries of one subject of a study: its layers together, or one after another with SAELens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from tqdm import tqdm

from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.identity import ModelIdentity
from normprobe.models.model import OpenModel
from normprobe.ranks import Rank
from normprobe.saes.activations import chunks, draw_tokens, layer_groups, sample_states
from normprobe.saes.dictionary import Dictionary, describe, layer_folder, save
from normprobe.saes.training import generator_for, quality, train_sae, train_together

if TYPE_CHECKING:
    from sae_lens import SAE, TopKTrainingSAE


def train_subject(
    folder: Path,
    opened: OpenModel,
    responses: pd.DataFrame,
    layers: Sequence[int],
    settings: SaeSettings,
    seed: int,
    memory: int | None,
    bar: tqdm,
    rank: Rank,
) -> None:
    """Write every missing layer of one subject that is this process's; a layer's folder is there only when it is whole.

    Every subject and layer learns from the same tokens. memory: bytes above the weights that sampled states and
    reading may take together. Raises NormprobeError as reading and training do.
    """
    own = rank.own(layers)
    missing = [layer for layer in own if not layer_folder(folder, layer).exists()]
    if settings.trainer == "sae_lens":
        bar.update((len(own) - len(missing)) * settings.n_samples)
        _one_by_one(folder, opened, responses, missing, settings, seed, memory, bar)
    elif missing:
        _together(folder, opened, responses, layers, settings, seed, memory, bar, rank)
    else:
        bar.update(len(own) * settings.n_samples)


def check_batch_fits(settings: SaeSettings, model: ModelIdentity, dtype: torch.dtype, n_layers: int) -> None:
    """Raises NormprobeError if the states of one batch in all layers do not fit into the settings' memory."""
    need = settings.batch_size * n_layers * model.d_model * dtype.itemsize
    if settings.trainer == "normprobe" and need > settings.memory:
        gib = math.ceil(1000 * need / 2**30) / 1000
        raise NormprobeError(
            f"expected memory for the states of a batch of {settings.batch_size:,} tokens in {n_layers} layers "
            f"({gib} GiB), got {settings.memory_gb}; give --memory-gb {gib} or more, or fewer layers"
        )


def _one_by_one(
    folder: Path,
    opened: OpenModel,
    responses: pd.DataFrame,
    missing: Sequence[int],
    settings: SaeSettings,
    seed: int,
    memory: int | None,
    bar: tqdm,
) -> None:
    """Each layer by itself; as many layers are read at once as their sampled states fit into memory."""
    bytes_per_token = opened.identity.d_model * opened.model.dtype.itemsize
    n = min(settings.n_samples, settings.memory // bytes_per_token)
    rows = draw_tokens(responses, n, generator_for(seed, "tokens"))
    for group in layer_groups(missing, len(rows) * bytes_per_token, settings.memory):
        reading = memory and max(memory - len(group) * len(rows) * bytes_per_token, 1)
        for states, layer in zip(
            sample_states(opened, responses, rows, group, folder.name, reading), group, strict=True
        ):
            # A generator of its own: a resumed layer comes out as it would have without the interruption.
            generator = generator_for(seed, folder.name, layer)
            metadata = describe(opened.identity, layer, folder.name, seed)
            sae = train_sae(states, settings, metadata, generator, opened.device, bar.update)
            _save(sae, states, layer_folder(folder, layer))


def _together(
    folder: Path,
    opened: OpenModel,
    responses: pd.DataFrame,
    layers: Sequence[int],
    settings: SaeSettings,
    seed: int,
    memory: int | None,
    bar: tqdm,
    rank: Rank,
) -> None:
    """All layers of this process in one training, over as many chunks of the sampled tokens as the states of all need.

    What a layer learns does not depend on which layers are trained with it.
    """
    own = rank.own(layers)
    of_token = len(layers) * opened.identity.d_model * opened.model.dtype.itemsize
    size = settings.memory // of_token
    rows = draw_tokens(responses, settings.n_samples, generator_for(seed, "tokens"))
    parts = chunks(responses, rows, size, generator_for(seed, "chunks"))

    def read(number: int) -> Float[torch.Tensor, "sae row d"]:
        part = parts[number]
        reading = memory and max(memory - len(part.rows) * of_token, 1)
        return sample_states(opened, part.responses, part.rows, own, folder.name, reading)

    def shown(samples: int, r2: Float[torch.Tensor, " sae"], dead: Float[torch.Tensor, " sae"]) -> None:
        worst = int(r2.argmin())
        bar.set_postfix_str(
            f"R² {r2.mean():.3f}, least {r2[worst]:.3f} in layer {own[worst]}, dead {dead.mean():.0%}",
            refresh=False,
        )
        bar.update(samples)

    folder.mkdir(exist_ok=True)
    checkpoint = folder / f"unfinished_{rank.number}_of_{rank.total}.safetensors"
    saes = train_together(
        read,
        [len(part.rows) for part in parts],
        settings,
        [describe(opened.identity, layer, folder.name, seed) for layer in own],
        [generator_for(seed, folder.name, layer) for layer in own],
        generator_for(seed, folder.name, "order"),
        opened.device,
        checkpoint=checkpoint,
        on_step=shown,
    )
    for sae, states, layer in zip(saes, read(0), own, strict=True):
        if not layer_folder(folder, layer).exists():
            _save(sae, states, layer_folder(folder, layer))
    checkpoint.unlink(missing_ok=True)


def _save(sae: SAE[Any] | TopKTrainingSAE, states: Float[torch.Tensor, "row d"], place: Path) -> None:
    """Write a trained autoencoder with its quality on these states."""
    for name, value in quality(Dictionary.of(sae), states).items():
        sae.cfg.metadata[name] = value
    save(sae, place)
