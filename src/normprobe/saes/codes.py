"""Sum the codes of a stream of states by problem, mode and segment; no state or code is kept per token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from normprobe.models.model import OpenModel
from normprobe.saes.dictionary import Dictionary
from normprobe.thinking_formats import MODES
from normprobe.tracing.stream import Piece, check_finite, stream_states

SEGMENTS = ("thought", "answer")
SCALARS = ("h_sq", "norm", "r_sq", "ratio")
_CODES_AT_ONCE = 2**24
_CODES_PER_BLOCK = 2**26
"""Floats of one chunk's codes (four tensors of that size), and of a block's sums, where memory allows them."""


@dataclass(frozen=True)
class TokenChunk:
    """Some tokens of one layer: h [n, d], each token's response (a row of the block) and position in the sequence."""

    layer_row: int
    h: Float[torch.Tensor, "n d"]
    response: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]


def read_chunks(
    opened: OpenModel,
    block: pd.DataFrame,
    layers: Sequence[int],
    width: int,
    subject: str,
    visit: Callable[[TokenChunk], object],
    memory: int | None = None,
) -> None:
    """Call `visit` with every token of a block of responses in every layer of `layers`, in chunks whose codes
    (n × width) fit in memory: half of it is for reading, a quarter for codes, and a quarter for a block's sums.

    Raises NormprobeError if a state is NaN or infinite, or as `stream_states` does.
    """
    size = chunk_size(width, memory)
    row_of = {layer: row for row, layer in enumerate(layers)}

    def split(piece: Piece) -> None:
        if (row := row_of.get(piece.layer)) is None:
            return
        check_finite(piece, subject)
        for start in range(0, len(piece.position), size):
            some = slice(start, start + size)
            visit(TokenChunk(row, piece.h[some], piece.response_index[some], piece.position[some]))

    stream_states(opened, block, set(block["split"]), split, memory and memory // 2)


def chunk_size(width: int, memory: int | None) -> int:
    """How many tokens' codes of this width are held at once, in a quarter of `memory` bytes where it is given."""
    codes = _CODES_AT_ONCE if memory is None else min(_CODES_AT_ONCE, memory // 64)
    return max(1, codes // width)


def blocks(responses: pd.DataFrame, codes: int, memory: int | None = None) -> Iterator[pd.DataFrame]:
    """The responses in blocks of whole problems, in table order, each so small that its sums fit in memory.

    codes: how many are summed for each mode and segment of a problem, over all readers and layers. All of a problem's
    responses are in one block: when it ends, the problem's pairs are complete. Its index is that of `responses`.
    """
    problems = responses["problem_id"].drop_duplicates().to_numpy()
    floats = _CODES_PER_BLOCK if memory is None else min(_CODES_PER_BLOCK, memory // 16)
    size = max(1, floats // (len(MODES) * len(SEGMENTS) * codes))
    for start in range(0, len(problems), size):
        yield responses[responses["problem_id"].isin(problems[start : start + size])]


class TokenGroups:
    """The groups (problem, mode, segment) of a block, and the group of each token: −1 outside thought and answer."""

    def __init__(self, block: pd.DataFrame) -> None:
        self._spans = block[["thought_start", "thought_end", "answer_start", "answer_end"]].to_numpy()
        problem, problems = pd.factorize(block["problem_id"])
        self.problems: list[str] = list(problems)
        splits = block.drop_duplicates("problem_id").set_index("problem_id")["split"]
        self.splits: list[str] = splits.loc[self.problems].tolist()
        mode = block["mode"].map(MODES.index).to_numpy()
        self._first = (problem * len(MODES) + mode) * len(SEGMENTS)
        self.n_tokens: Int[np.ndarray, "problem mode segment"] = np.zeros(self.shape, dtype=np.int64)
        np.add.at(self.n_tokens, (problem, mode), self._spans[:, 1::2] - self._spans[:, ::2])

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.problems), len(MODES), len(SEGMENTS)

    def of(self, chunk: TokenChunk) -> Int[np.ndarray, " n"]:
        spans, position = self._spans[chunk.response], chunk.position
        group = np.full(len(position), -1)
        for segment in range(len(SEGMENTS)):
            inside = (spans[:, 2 * segment] <= position) & (position < spans[:, 2 * segment + 1])
            group[inside] = self._first[chunk.response[inside]] + segment
        return group


class Sums:
    """Sums over the tokens of each group, [layer, problem, mode, segment, …], on the CPU, for one dictionary per
    layer.

    z: codes [..., feature], float32; the others float64: h [..., d], and of_tokens, by name: ‖h‖², ‖h‖, ‖r‖²
    and ‖r‖/‖h‖ of each token (r: SAE residual).
    """

    def __init__(self, groups: TokenGroups, dictionaries: Sequence[Dictionary]) -> None:
        atoms = dictionaries[0].atoms
        shape = (len(dictionaries), int(np.prod(groups.shape)))
        self._groups = groups
        self._z = torch.zeros(*shape, atoms.shape[0])
        self._h = torch.zeros(*shape, atoms.shape[1], dtype=torch.float64)
        self._of_tokens = torch.zeros(*shape, len(SCALARS), dtype=torch.float64)
        # Views of the same memory, so that they show whatever is added.
        self.z, self.h, of_tokens = (
            total.numpy().reshape(len(dictionaries), *groups.shape, -1)
            for total in (self._z, self._h, self._of_tokens)
        )
        self.of_tokens = dict(zip(SCALARS, np.moveaxis(of_tokens, -1, 0), strict=True))

    def add(
        self, chunk: TokenChunk, z: Float[torch.Tensor, "n feature"], x: Float[torch.Tensor, "n d"] | None
    ) -> None:
        """Add the codes z of the chunk's states and, given their reconstruction x, everything else."""
        self._add(self._z, chunk, z)
        if x is None:
            return
        h_sq = chunk.h.square().sum(dim=1)
        r_sq = (chunk.h - x).square().sum(dim=1)
        of_tokens = torch.stack([h_sq, h_sq.sqrt(), r_sq, (r_sq / h_sq).sqrt()], dim=1)
        self._add(self._h, chunk, chunk.h)
        self._add(self._of_tokens, chunk, of_tokens)

    def _add(self, total: torch.Tensor, chunk: TokenChunk, values: Float[torch.Tensor, "n column"]) -> None:
        group = self._groups.of(chunk)
        # Tokens of a group follow one another: sums over runs, which are deterministic on every device.
        starts = np.flatnonzero(np.diff(group, prepend=-2))
        lengths = np.diff(starts, append=len(group))
        runs = torch.segment_reduce(
            values, "sum", lengths=torch.from_numpy(lengths).to(values.device), axis=0
        )
        inside = np.flatnonzero(group[starts] >= 0)
        total[chunk.layer_row].index_add_(
            0, torch.from_numpy(group[starts[inside]]), runs.cpu()[inside].to(total.dtype)
        )
