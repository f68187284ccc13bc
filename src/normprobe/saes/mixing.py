"""How well problems are mixed in the batches of a training, out of which chunks it visits; no model is run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from normprobe.saes.activations import Chunk


@dataclass(frozen=True)
class Mixing:
    """How often two tokens are of one problem, over how often they would be if all states were held at once.

    1 is perfect. within: of one batch; neighbours: of a batch and the next. N chunks of random responses have at most
    about N.
    """

    within: float
    neighbours: float

    @property
    def metadata(self) -> dict[str, float]:
        """What a dictionary says about its training's mixing in its cfg.json."""
        return {"mixing_in_batch": self.within, "mixing_of_neighbours": self.neighbours}


def measure_mixing(chunks: Sequence[Chunk], plan: Iterable[tuple[int, int]]) -> Mixing:
    """The mixing of a training that visits chunks as in `plan`: (number of the chunk, steps), as `visits` gives it.

    Expected values over what a chunk's shuffle may draw: a batch is a random part of its chunk, without replacement.
    """
    counts = _tokens_of_problems(chunks)
    sizes = counts.sum(axis=1)
    visited = list(plan)
    numbers, steps = (np.array(column) for column in zip(*visited, strict=True))
    in_chunk = _same(counts)
    perfect = _same(counts.sum(axis=0, keepdims=True))[0]
    before, after = numbers[:-1], numbers[1:]
    across = (counts[before] * counts[after]).sum(axis=1) / (sizes[before] * sizes[after])
    across = np.where(before == after, in_chunk[before], across)
    inner = np.sum((steps - 1) * in_chunk[numbers]) + across.sum()
    within = np.average(in_chunk[numbers], weights=steps)
    return Mixing(float(within / perfect), float(inner / max(1, steps.sum() - 1) / perfect))


def _same(counts: Int[np.ndarray, "chunk problem"]) -> np.ndarray:
    """The probability that two different tokens of a chunk are of one problem, [chunk]."""
    sizes = counts.sum(axis=1)
    return (counts * (counts - 1)).sum(axis=1) / np.maximum(1, sizes * (sizes - 1))


def _tokens_of_problems(chunks: Sequence[Chunk]) -> Int[np.ndarray, "chunk problem"]:
    """How many tokens of each problem a chunk holds."""
    problems = sorted({problem for chunk in chunks for problem in chunk.responses["problem_id"]})
    column = {problem: i for i, problem in enumerate(problems)}
    counts = np.zeros((len(chunks), len(problems)), dtype=np.int64)
    for chunk, of_chunk in zip(chunks, counts, strict=True):
        ends = np.cumsum(chunk.responses["token_ids"].map(len))
        owner = chunk.responses["problem_id"].map(column).to_numpy()
        np.add.at(of_chunk, owner[np.searchsorted(ends, chunk.rows, side="right")], 1)
    return counts
