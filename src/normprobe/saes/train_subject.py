"""Train the dictionaries of one subject of a study: its layers together, or one after another with SAELens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from tqdm import tqdm

from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.identity import ModelIdentity
from normprobe.models.model import OpenModel
from normprobe.ranks import Rank
from normprobe.saes.activations import Chunk, chunks, draw_tokens, layer_groups
from normprobe.saes.dictionary import describe, layer_folder, save
from normprobe.saes.exchange import least
from normprobe.saes.mixing import measure_mixing
from normprobe.saes.state_cache import StateCache
from normprobe.saes.state_reader import StateReader
from normprobe.saes.training import generator_for, train_sae, train_together, visits


@dataclass(frozen=True)
class SubjectTraining:
    """The training of one subject's dictionaries at `layers`, into `folder`.

    Every subject and layer learns from the same tokens of `responses`. memory: bytes above the weights that sampled
    states and reading may take together. rank: which of the layers are this process's.
    """

    folder: Path
    opened: OpenModel
    responses: pd.DataFrame
    layers: Sequence[int]
    settings: SaeSettings
    seed: int
    memory: int | None
    rank: Rank

    def run(self, bar: tqdm) -> None:
        """Write every layer that is missing; a layer's folder is there only when it is whole.

        Several processes call this together, and return when all have written their layers. Raises NormprobeError as
        reading and training do.
        """
        missing = [layer for layer in self.layers if not layer_folder(self.folder, layer).exists()]
        if missing and self.settings.trainer == "normprobe":
            self._together(bar)
            return
        done = len(self.rank.own(self.layers)) - len(missing)
        bar.update(done * self.settings.n_samples)
        self._one_by_one(missing, bar)

    def _one_by_one(self, missing: Sequence[int], bar: tqdm) -> None:
        """Each layer by itself; as many layers are read at once as their sampled states fit into memory."""
        settings, of_token = self.settings, self._bytes_per_layer
        rows = self._tokens(min(settings.n_samples, settings.memory // of_token))
        for group in layer_groups(missing, len(rows) * of_token, settings.memory):
            of_layers = self._reader([Chunk(self.responses, rows)], group).read(0)
            for states, layer in zip(of_layers, group, strict=True):
                metadata, generator = self._metadata(layer), self._generator(layer)
                sae = train_sae(states, settings, metadata, generator, self.opened.device, bar.update)
                save(sae, layer_folder(self.folder, layer))

    def _together(self, bar: tqdm) -> None:
        """All layers of this process in one training, over as many chunks of the tokens as the states of all need.

        What a layer learns does not depend on which layers are trained with it.
        """
        own, rank = self.rank.own(self.layers), self.rank
        rows, order = self._tokens(self.settings.n_samples), generator_for(self.seed, "chunks")
        size = self.settings.memory // (len(self.layers) * self._bytes_per_layer)
        reader = self._reader(chunks(self.responses, rows, size, order), self.layers)
        mixing = measure_mixing(reader.chunks, visits(reader.sizes, self.settings, self._order()))

        def shown(samples: int, r2: Float[torch.Tensor, " sae"], dead: Float[torch.Tensor, " sae"]) -> None:
            worst = int(r2.argmin())
            least_r2 = f"least {r2[worst]:.3f} in layer {own[worst]}"
            bar.set_postfix_str(f"R² {r2.mean():.3f}, {least_r2}, dead {dead.mean():.0%}", refresh=False)
            bar.update(samples)

        self.folder.mkdir(exist_ok=True)
        checkpoint = self.folder / f"unfinished_{rank.number}_of_{rank.total}.safetensors"
        saes = train_together(
            reader.read,
            reader.sizes,
            self.settings,
            [{**self._metadata(layer), **mixing.metadata} for layer in own],
            [self._generator(layer) for layer in own],
            self._order(),
            self.opened.device,
            checkpoint=checkpoint,
            on_step=shown,
            agree=lambda done: least(done, rank),
        )
        for sae, layer in zip(saes, own, strict=True):
            if not layer_folder(self.folder, layer).exists():
                save(sae, layer_folder(self.folder, layer))
        least(0, rank)  # a process that begins again finds every other's checkpoint until all are done
        checkpoint.unlink(missing_ok=True)

    @property
    def _bytes_per_layer(self) -> int:
        """Of one token's state."""
        return self.opened.identity.d_model * self.opened.model.dtype.itemsize

    def _tokens(self, n: int) -> Int[np.ndarray, " row"]:
        return draw_tokens(self.responses, n, generator_for(self.seed, "tokens"))

    def _reader(self, parts: Sequence[Chunk], layers: Sequence[int]) -> StateReader:
        cache, identity = self.settings.cache, self.opened.identity
        kept = None if cache is None else StateCache(Path(cache) / self.folder.name, identity)
        return StateReader(self.opened, self.folder.name, layers, parts, self.memory, self.rank, kept)

    def _metadata(self, layer: int) -> dict[str, Any]:
        return describe(self.opened.identity, layer, self.folder.name, self.seed)

    def _order(self) -> torch.Generator:
        return generator_for(self.seed, self.folder.name, "order")

    def _generator(self, layer: int) -> torch.Generator:
        """One of its own: a resumed layer comes out as it would have without the interruption."""
        return generator_for(self.seed, self.folder.name, layer)


def check_batch_fits(settings: SaeSettings, model: ModelIdentity, dtype: torch.dtype, n_layers: int) -> None:
    """Raises NormprobeError if the states of one batch in all layers do not fit into the settings' memory."""
    need = settings.batch_size * n_layers * model.d_model * dtype.itemsize
    if settings.trainer == "normprobe" and need > settings.memory:
        gib = math.ceil(1000 * need / 2**30) / 1000
        raise NormprobeError(
            f"expected memory for the states of a batch of {settings.batch_size:,} tokens in {n_layers} layers "
            f"({gib} GiB), got {settings.memory_gb}; give --memory-gb {gib} or more, or fewer layers"
        )
