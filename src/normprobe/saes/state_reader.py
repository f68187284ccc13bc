"""The states that dictionaries are trained on, a chunk at a time: out of the model, or out of a cache on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from normprobe.models.model import OpenModel
from normprobe.ranks import ALONE, Rank
from normprobe.saes.activations import Chunk, sample_states
from normprobe.saes.state_cache import StateCache


@dataclass(frozen=True)
class StateReader:
    """Reads chunks of sampled tokens of a subject at `layers`.

    memory: bytes above the weights that a chunk's states and reading them take together (None: as it is fastest).
    rank: of several processes, which read together, each gets its own of the layers. cache: where states are kept.
    Raises NormprobeError if the cache has states of others, or no room.
    """

    opened: OpenModel
    subject: str
    layers: Sequence[int]
    chunks: Sequence[Chunk]
    memory: int | None = None
    rank: Rank = ALONE
    cache: StateCache | None = None

    def __post_init__(self) -> None:
        if self.cache is not None:
            self.cache.check(self.chunks, self.rank.own(self.layers))

    @property
    def sizes(self) -> list[int]:
        """Tokens of each chunk."""
        return [len(chunk.rows) for chunk in self.chunks]

    def read(self, number: int) -> Float[torch.Tensor, "own row d"]:
        """States of chunk `number` at this process's own layers. Raises NormprobeError as `sample_states` does."""
        chunk, own, cache = self.chunks[number], self.rank.own(self.layers), self.cache
        # All layers, so that of several processes all read the model or none.
        if cache is not None and cache.has(number, self.layers):
            return torch.stack([cache.read(number, layer, chunk) for layer in own])
        of_token = len(self.layers) * self.opened.identity.d_model * self.opened.model.dtype.itemsize
        memory = self.memory and max(self.memory - len(chunk.rows) * of_token, 1)
        states = sample_states(
            self.opened, chunk.responses, chunk.rows, self.layers, self.subject, memory, self.rank
        )
        if cache is not None:
            for layer, of_layer in zip(own, states, strict=True):
                cache.write(number, layer, chunk, of_layer)
        return states
