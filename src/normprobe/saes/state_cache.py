"""States of sampled tokens on disk: a second training of the same tokens reads them instead of the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.models.identity import ModelIdentity
from normprobe.runs.atomic import atomic_write, make_directory
from normprobe.saes.activations import Chunk
from normprobe.saes.dictionary import layer_folder

_NAME = "states"
_Taken = TypeVar("_Taken")


@dataclass(frozen=True)
class StateCache:
    """A safetensors file per layer and chunk, layer_NN/chunk_NNNN.safetensors in `folder`, of one network's states.

    The header names the network's weights, the dtype, the layer and the tokens, and what is of others is refused. A
    file is there only when it is whole.
    """

    folder: Path
    identity: ModelIdentity

    def check(self, chunks: Sequence[Chunk], layers: Sequence[int]) -> None:
        """Raises NormprobeError if what is there is of others or damaged, or if there is no room for what is missing.

        So a training that cannot be cached fails before it begins.
        """
        missing = 0
        for (number, chunk), layer in product(enumerate(chunks), layers):
            if self._path(number, layer).exists():
                self._open(number, layer, chunk, lambda file: None)
            else:
                missing += (
                    len(chunk.rows) * self.identity.d_model * getattr(torch, self.identity.dtype).itemsize
                )
        make_directory(self.folder)
        if missing > (free := shutil.disk_usage(self.folder).free):
            raise NormprobeError(
                f"expected {missing / 1e9:.1f} GB of free space for the states in {self.folder}, got {free / 1e9:.1f}; "
                "name another directory (--cache), or go without one"
            )

    def has(self, number: int, layers: Sequence[int]) -> bool:
        """Whether chunk `number` can be read at all these layers."""
        return all(self._path(number, layer).exists() for layer in layers)

    def read(self, number: int, layer: int, chunk: Chunk) -> Float[torch.Tensor, "row d"]:
        """States as they were written. Raises NormprobeError if they are of others, or damaged."""
        return self._open(number, layer, chunk, lambda file: file.get_tensor(_NAME))

    def write(self, number: int, layer: int, chunk: Chunk, states: Float[torch.Tensor, "row d"]) -> None:
        path = self._path(number, layer)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            save_file({_NAME: states}, unfinished, self._header(layer, chunk))

    def _open(self, number: int, layer: int, chunk: Chunk, take: Callable[[safe_open], _Taken]) -> _Taken:
        """What `take` takes of a file, which is checked."""
        path = self._path(number, layer)
        with (
            refusing_damage(f"readable states in {path}", "delete the file", OSError, SafetensorError),
            safe_open(path, "pt") as file,
        ):
            found, taken = file.metadata() or {}, take(file)
        for name, value in self._header(layer, chunk).items():
            if found.get(name) != value:
                raise NormprobeError(
                    f"expected states of {name} {value:.12} in {path}, got {found.get(name)!s:.12}; name another "
                    "directory (--cache), or give the model, problems, seed, --layers, --n-samples and --memory-gb of "
                    "the training that made it"
                )
        return taken

    def _header(self, layer: int, chunk: Chunk) -> dict[str, str]:
        identity = self.identity
        of_network = {"model": identity.weights, "dtype": identity.dtype}
        return {**of_network, "layer": str(layer), "tokens": chunk.fingerprint}

    def _path(self, number: int, layer: int) -> Path:
        return layer_folder(self.folder, layer) / f"chunk_{number:04d}.safetensors"
