"""One pass of a model over its traced responses: where some features of its dictionaries fire, and how strongly."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from normprobe.feature_pages.token_sums import TokenSums
from normprobe.models.model import OpenModel
from normprobe.saes.activations import PAIRED
from normprobe.saes.codes import chunk_size
from normprobe.saes.dictionary import Dictionary
from normprobe.saes.reductions import SPLITS
from normprobe.thinking_formats import MODES
from normprobe.tracing.stream import Piece, check_finite, stream_states, token_offsets

EXAMPLES, CONTEXT = 20, 10
"""Examples of each feature, each from another response, and tokens that are shown to either side."""
EDGES: Float[np.ndarray, " edge"] = 2.0 ** np.arange(-10, 16.5, 0.5)
"""Edges of the bins of activations above 0, half an octave wide; what lies outside counts in the first or last."""


class TracedTokens:
    """What is known of every token of the splits select and measure, in the order of traces/tokens.parquet.

    `ids` numbers the distinct token ids (`distinct`) of thoughts and answers; `shuffled` is the same with the tokens
    of each split permuted among thoughts and answers in think and no_think: the control in which identity says nothing.
    """

    def __init__(self, responses: pd.DataFrame, rng: np.random.Generator) -> None:
        self.responses = responses
        self.offsets, n = token_offsets(responses, SPLITS)
        self.mode = responses["mode"].map(MODES.index).to_numpy()
        self.measured = (responses["split"] == "measure").to_numpy()
        self.inside: Bool[np.ndarray, " token"] = np.zeros(n, dtype=bool)
        token_ids = np.zeros(n, dtype=np.int64)
        owner = np.zeros(n, dtype=np.int64)
        spans = responses[["thought_start", "thought_end", "answer_start", "answer_end"]].to_numpy()
        for row in np.flatnonzero(self.offsets >= 0):
            ids, start = responses["token_ids"].iloc[row], self.offsets[row]
            token_ids[start : start + len(ids)] = ids
            owner[start : start + len(ids)] = row
            for first, last in spans[row].reshape(2, 2):
                self.inside[start + first : start + max(first, last)] = True
        self.n_inside = np.bincount(owner[self.inside], minlength=len(responses))
        self.paired = self.inside & np.isin(self.mode[owner], [MODES.index(mode) for mode in PAIRED])
        self.distinct, numbers = np.unique(token_ids[self.inside], return_inverse=True)
        self.ids: Int[np.ndarray, " token"] = np.zeros(n, dtype=np.int64)
        self.ids[self.inside] = numbers
        self.shuffled = self.ids.copy()
        for measured in (False, True):
            rows = np.flatnonzero(self.paired & (self.measured[owner] == measured))
            self.shuffled[rows] = self.ids[rng.permutation(rows)]


@dataclass(frozen=True)
class Example:
    """A token at which a feature fires, and its activations from the position `start` on, around it."""

    activation: float
    response: int
    position: int
    start: int
    values: Float[np.ndarray, " token"]


class LayerActivity:
    """What one pass gathers of the chosen features of one layer, over thoughts and answers.

    counts [mode, bin, feature]: tokens of the split measure, bin 0 those where it is silent. sums, maxima [response,
    feature]. identity, shuffled: activations by token id in think and no_think, by split. examples: by feature, the
    strongest first.
    """

    def __init__(self, tokens: TracedTokens, n_features: int) -> None:
        self._tokens, n = tokens, len(tokens.responses)
        self.counts = np.zeros((len(MODES), len(EDGES), n_features), dtype=np.int64)
        self.sums, self.maxima = np.zeros((n, n_features)), np.zeros((n, n_features))
        self.identity, self.shuffled = (
            {split: TokenSums(len(tokens.distinct), n_features) for split in SPLITS} for _ in range(2)
        )
        self.examples: list[list[Example]] = [[] for _ in range(n_features)]

    @property
    def means(self) -> Float[np.ndarray, "response feature"]:
        """Mean activation over each response; NaN for one without thought and answer."""
        n = self._tokens.n_inside[:, None]
        return np.where(n > 0, self.sums / np.maximum(n, 1), np.nan)

    def mean_in(self, mode: str) -> Float[np.ndarray, " feature"]:
        """The mean of these over the responses of a mode in the split measure; NaN if there are none."""
        tokens = self._tokens
        rows = tokens.measured & (tokens.mode == MODES.index(mode)) & (tokens.n_inside > 0)
        return self.means[rows].sum(axis=0) / (rows.sum() or np.nan)

    def add(self, piece: Piece, z: Float[np.ndarray, "token feature"]) -> None:
        """Add the activations at the tokens of a piece."""
        tokens, response = self._tokens, piece.response_index
        rows = tokens.offsets[response] + piece.position
        inside, measured = tokens.inside[rows], tokens.measured[response]
        for mode in range(len(MODES)):
            self._count(mode, z[inside & measured & (tokens.mode[response] == mode)])
        for split, of_split in (("select", ~measured), ("measure", measured)):
            some = of_split & tokens.paired[rows]
            self.identity[split].add(tokens.ids[rows[some]], z[some])
            self.shuffled[split].add(tokens.shuffled[rows[some]], z[some])
        # Tokens of a response follow one another.
        starts = np.flatnonzero(np.diff(response, prepend=-1))
        among, owner = np.where(inside[:, None], z, 0.0), response[starts]
        self.sums[owner] += np.add.reduceat(among, starts, axis=0)
        highest = np.maximum.reduceat(among, starts, axis=0)
        self.maxima[owner] = np.maximum(self.maxima[owner], highest)
        ends = np.append(starts[1:], len(rows))
        bar = np.array([kept[-1].activation if len(kept) == EXAMPLES else 0.0 for kept in self.examples])
        for run, feature in np.argwhere((highest > bar) & tokens.measured[owner][:, None]).tolist():
            some = slice(starts[run], ends[run])
            at = int(among[some, feature].argmax())
            first, last = max(at - CONTEXT, 0), at + CONTEXT + 1
            position = piece.position[some]
            example = Example(
                float(highest[run, feature]),
                int(owner[run]),
                int(position[at]),
                int(position[first]),
                z[some, feature][first:last],
            )
            self._keep(feature, example)

    def _count(self, mode: int, z: Float[np.ndarray, "token feature"]) -> None:
        bins = np.where(z > 0, np.searchsorted(EDGES[1:-1], z, side="right") + 1, 0)
        np.add.at(self.counts[mode], (bins, np.arange(z.shape[1])), 1)

    def _keep(self, feature: int, example: Example) -> None:
        """Keep an example if it is among the strongest of its feature and the strongest of its response."""
        kept = self.examples[feature]
        same = next((i for i, other in enumerate(kept) if other.response == example.response), None)
        if same is not None:  # a long response comes in several pieces
            if kept[same].activation >= example.activation:
                return
            del kept[same]
        bisect.insort(kept, example, key=lambda other: -other.activation)
        del kept[EXAMPLES:]


def read_activity(
    opened: OpenModel,
    tokens: TracedTokens,
    dictionaries: Mapping[int, Dictionary],
    features: Mapping[int, Sequence[int]],
    *,
    memory: int | None = None,
    on_tokens: Callable[[int], object] = lambda _tokens: None,
) -> dict[int, LayerActivity]:
    """Layer → the activity of `features[layer]`, from one pass over the responses of select and measure.

    memory: bytes above the weights that reading may take (None: as it is fastest). on_tokens is called with how many
    tokens × layers were just read. Raises NormprobeError if a state is not finite, or as `stream_states` does.
    """
    activity = {layer: LayerActivity(tokens, len(some)) for layer, some in features.items()}

    def visit(piece: Piece) -> None:
        if piece.layer in activity:
            check_finite(piece, "model")
            z = codes(dictionaries[piece.layer], piece.h, features[piece.layer], memory)
            activity[piece.layer].add(piece, z)
            on_tokens(len(z))

    stream_states(opened, tokens.responses, SPLITS, visit, memory and memory // 2)
    return activity


def codes(
    dictionary: Dictionary, h: Float[torch.Tensor, "token d"], features: Sequence[int], memory: int | None
) -> Float[np.ndarray, "token feature"]:
    """The codes of some features, float64; all codes are in memory for a chunk of the tokens only."""
    parts = [
        dictionary.encode(some)[:, list(features)] for some in h.split(chunk_size(dictionary.width, memory))
    ]
    return torch.cat(parts).cpu().double().numpy()
