"""Reduce the dictionaries' codes to what claims read: sums per token, mean states per problem, in two passes.

The first pass selects the reasoning features on the split "select"; the second reduces "select" and "measure".
Problems go through in blocks, states and codes in chunks: besides the tables that are written, memory does not grow
with the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from normprobe.models.model import OpenModel
from normprobe.saes.activations import PAIRED
from normprobe.saes.codes import Sums, TokenChunk, TokenGroups, blocks, read_chunks
from normprobe.saes.dictionary import Dictionary
from normprobe.saes.features import PairedMoments, feature_sets
from normprobe.saes.mean_states import NO_THINK, THINK, MeanStates, pairs_table, sums_table
from normprobe.theory.orthogonality import c_star, coherence
from normprobe.tracing.stream import token_offsets

SPLITS = ("select", "measure")
TOPS = {"top8": 8, "top32": 32, "top128": 128}
SCOPES = {"response": slice(0, 2), "answer": slice(1, 2)}
"""Scope → the segments (thought, answer) it consists of."""
Readers = Mapping[str, Mapping[int, Dictionary]]
"""Reader → layer → dictionary, for readers that read the same subject in the same layers with the same width."""


@dataclass(frozen=True)
class Reduced:
    """One reader's tables, as in reductions/; tokens: z_reasoning, z_matched and z_total [layer, token]."""

    features: pd.DataFrame
    sums: pd.DataFrame
    pairs: pd.DataFrame
    dictionary: pd.DataFrame
    tokens: dict[str, Float[np.ndarray, "layer token"]]


def reduce_subject(
    opened: OpenModel,
    responses: pd.DataFrame,
    dictionaries: Readers,
    subject: str,
    *,
    sizes: Mapping[str, Sequence[int]] = MappingProxyType({}),
    memory: int | None = None,
    on_tokens: Callable[[int], object] = lambda _tokens: None,
) -> dict[str, Reduced]:
    """Both passes over the responses of the splits select and measure, for all readers that read `subject`.

    The first reader's reasoning features are those that the rule selects (`normprobe.saes.features`); the others are
    controls, and take as many in each layer as it has, or as `sizes` gives for them.
    Tokens are in the order of traces/tokens.parquet. memory: bytes above weights and dictionaries that reading and
    summing may take (None: as it is fastest). `on_tokens` is called with how many tokens × layers of the `work`
    were just done. Raises NormprobeError if states are not finite, or fewer than two problems of "select" are answered
    in both modes.
    """
    responses = responses.reset_index(drop=True)
    layers = sorted(next(iter(dictionaries.values())))
    readers = {
        name: _Reader(name, layers, [by_layer[layer] for layer in layers])
        for name, by_layer in dictionaries.items()
    }
    selecting, reducing = _of_passes(responses)
    offsets, n = token_offsets(responses, SPLITS)
    width = next(iter(readers.values())).width

    def read(chosen: pd.DataFrame, finish: Callable[[_Reader, TokenGroups, Sums], None]) -> None:
        for block in blocks(chosen, len(readers) * len(layers) * width, memory):
            groups, columns = TokenGroups(block), offsets[block.index.to_numpy()]
            sums = {name: Sums(groups, reader.dictionaries) for name, reader in readers.items()}

            def visit(
                chunk: TokenChunk, columns: np.ndarray = columns, sums: Mapping[str, Sums] = sums
            ) -> None:
                for name, reader in readers.items():
                    reader.read(chunk, columns[chunk.response] + chunk.position, sums[name])
                on_tokens(len(chunk.h))

            read_chunks(opened, block, layers, width, subject, visit, memory)
            for name, reader in readers.items():
                finish(reader, groups, sums[name])

    read(selecting, lambda reader, groups, sums: reader.moments.add(*_paired_means(groups, sums)))
    asked: Sequence[int] | None = None
    for name, reader in readers.items():
        reader.select(n, sizes.get(name, asked))
        asked = asked or n_selected(reader.features)
    read(reducing, _Reader.summarise)
    return {name: reader.result() for name, reader in readers.items()}


def n_selected(features: pd.DataFrame) -> list[int]:
    """How many features of one reader's table are selected, by layer."""
    return features.groupby("layer")["selected"].sum().tolist()


def work(responses: pd.DataFrame, n_layers: int) -> int:
    """Tokens × layers that `reduce_subject` reads in both passes."""
    return n_layers * sum(int(of_pass["token_ids"].map(len).sum()) for of_pass in _of_passes(responses))


def _of_passes(responses: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The responses that the first pass reads, and those of the second."""
    selecting = (responses["split"] == "select") & responses["mode"].isin(list(PAIRED))
    return responses[selecting], responses[responses["split"].isin(list(SPLITS))]


class _Reader:
    """What one reader gathers in both passes."""

    def __init__(self, name: str, layers: Sequence[int], dictionaries: Sequence[Dictionary]) -> None:
        self.name, self.layers, self.dictionaries = name, list(layers), list(dictionaries)
        self.width = dictionaries[0].width
        self.moments = PairedMoments(len(layers), self.width)
        self._sums: list[pd.DataFrame] = []
        self._pairs: list[pd.DataFrame] = []
        self._picks: torch.Tensor | None = (
            None  # what the sums per token pick, once the features are selected
        )
        # Of thought and answer in think and no_think, split "measure": Σh, and n, Σ‖h‖², Σ‖r‖², Σ‖r‖/‖h‖.
        self._h = np.zeros((len(layers), dictionaries[0].atoms.shape[1]))
        self._fit = np.zeros((len(layers), 4))

    def select(self, n_tokens: int, sizes: Sequence[int] | None) -> None:
        """End the first pass; sizes: as `PairedMoments.table` has it."""
        self.features = self.moments.table(self.layers, sizes)
        self.sets = feature_sets(self.features, TOPS)
        shape = (len(self.layers), n_tokens)
        self._tokens = {
            name: np.zeros(shape, dtype=np.float32) for name in ("z_reasoning", "z_matched", "z_total")
        }
        everything = np.ones_like(self.sets["reasoning"])
        picks = np.stack([self.sets["reasoning"], self.sets["matched"], everything], axis=-1)
        device = self.dictionaries[0].atoms.device
        self._picks = torch.from_numpy(picks).to(device, torch.float32)

    def read(self, chunk: TokenChunk, columns: np.ndarray, sums: Sums) -> None:
        dictionary = self.dictionaries[chunk.layer_row]
        z = dictionary.encode(chunk.h)
        if self._picks is None:
            sums.add(chunk, z, None)
            return
        picked = (z @ self._picks[chunk.layer_row]).cpu().numpy()
        for name, values in zip(self._tokens, picked.T, strict=True):
            self._tokens[name][chunk.layer_row, columns] = values
        sums.add(chunk, z, dictionary.reconstruct(z))

    def summarise(self, groups: TokenGroups, sums: Sums) -> None:
        """End a block: its mean states become rows."""
        scalars, splits = sums.of_tokens, np.array(groups.splits)
        measured, modes = splits == "measure", [THINK, NO_THINK]
        for row, (layer, dictionary) in enumerate(zip(self.layers, self.dictionaries, strict=True)):
            self._h[row] += sums.h[row][measured][:, modes].sum(axis=(0, 1, 2))
            of_tokens = (scalars[name][row][measured][:, modes].sum() for name in ("h_sq", "r_sq", "ratio"))
            self._fit[row] += [groups.n_tokens[measured][:, modes].sum(), *of_tokens]
            sets = {name: masks[row] for name, masks in self.sets.items()}
            atoms, bias = (tensor.cpu().double().numpy() for tensor in (dictionary.atoms, dictionary.bias))
            for scope, segments in SCOPES.items():
                means = MeanStates.of_sums(
                    sums.z[row][:, :, segments].sum(axis=2),
                    sums.h[row][:, :, segments].sum(axis=2),
                    {name: values[row][:, :, segments].sum(axis=2) for name, values in scalars.items()},
                    groups.n_tokens[:, :, segments].sum(axis=2),
                )
                label = {"reader": self.name, "layer": layer, "scope": scope}
                for tables, table in (
                    (self._sums, sums_table(means, sets, atoms, bias)),
                    (self._pairs, pairs_table(means, sets["reasoning"])),
                ):
                    problem = table.pop("problem").to_numpy()
                    names = {"problem_id": np.array(groups.problems)[problem], "split": splits[problem]}
                    tables.append(table.assign(**label, **names))

    def result(self) -> Reduced:
        keys = ["reader", "problem_id", "split", "layer", "scope", "feature_set"]
        sums, pairs = (pd.concat(tables, ignore_index=True) for tables in (self._sums, self._pairs))
        return Reduced(
            features=self.features.assign(reader=self.name)[["reader", *self.features.columns]],
            sums=sums[
                [*keys[:5], "mode", "feature_set", *sums.columns.difference([*keys, "mode"], sort=False)]
            ],
            pairs=pairs[[*keys, *pairs.columns.difference(keys, sort=False)]],
            dictionary=pd.DataFrame([self._describe(row) for row in range(len(self.layers))]),
            tokens=self._tokens,
        )

    def _describe(self, row: int) -> dict[str, object]:
        atoms = self.dictionaries[row].atoms.cpu().double().numpy()
        chosen = atoms[self.sets["reasoning"][row]]
        whole, selected = coherence(atoms), coherence(chosen)
        h, (n, h_sq, r_sq, ratio) = self._h[row], self._fit[row].tolist()
        return {
            "reader": self.name,
            "layer": self.layers[row],
            "d": atoms.shape[1],
            "width": len(atoms),
            "n_selected": len(chosen),
            "mean_abs_cos": whole.mean_abs,
            "max_abs_cos": whole.max_abs,
            "mu_selected": selected.max_abs,
            "mu_minus_selected": selected.mu_minus,
            "c_star_selected": c_star(chosen @ chosen.T),
            "r2": float(1 - r_sq / (h_sq - h @ h / n)) if n else math.nan,
            "eps_mean": ratio / n if n else math.nan,
        }


def _paired_means(
    groups: TokenGroups, sums: Sums
) -> tuple[Float[np.ndarray, "layer problem feature"], Float[np.ndarray, "layer problem feature"]]:
    """Mean codes over the response in think and in no_think, of the problems that have both."""
    n = groups.n_tokens.sum(axis=-1)
    both: Bool[np.ndarray, " problem"] = (n[:, THINK] > 0) & (n[:, NO_THINK] > 0)
    z = sums.z[:, both].sum(axis=3)
    think, no_think = (z[:, :, mode].astype(np.float64) / n[both, mode, None] for mode in (THINK, NO_THINK))
    return think, no_think
