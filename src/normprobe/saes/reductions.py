"""What claims read of a dictionary: sums per token, and the mean states' norms and inner products per problem.

Two passes over the responses of the splits select and measure: the first chooses the reasoning features on "select",
the second reduces both splits. A response lies within one batch, so hidden states never leave it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from tqdm import tqdm

from normprobe.errors import NormprobeError
from normprobe.models.open import OpenModel
from normprobe.saes.dictionary import Dictionary
from normprobe.saes.features import select_features, top_features
from normprobe.saes.mean_states import CONTRASTED, SCOPES, MeanStates, pairs_table, sums_table
from normprobe.theory.orthogonality import c_star, coherence
from normprobe.tracing.stream import Batch, stream_states, token_offsets

SPLITS = ("select", "measure")
TOP = (8, 32, 128)


@dataclass(frozen=True)
class LayerSet:
    """One layer's dictionary with its sets of features: columns into `union`, the features kept per response."""

    layer: int
    dictionary: Dictionary
    features: pd.DataFrame
    union: Int[torch.Tensor, " kept"]
    sets: dict[str, Int[np.ndarray, " members"]]

    @property
    def kept_atoms(self) -> Float[torch.Tensor, "kept d"]:
        """Unit atoms of the union."""
        return self.dictionary.atoms[self.union.to(self.dictionary.atoms.device)]

    def describe(self, moments: _Moments) -> pd.DataFrame:
        """The row of dictionary.parquet: coherence of all atoms and of the selected ones (A1), and the fit (A2)."""
        atoms = self.dictionary.atoms.cpu().double().numpy()
        chosen = atoms[np.flatnonzero(self.features["selected"])]
        whole, selected = coherence(atoms), coherence(chosen) if len(chosen) > 1 else None
        return pd.DataFrame(
            {
                "d": [atoms.shape[1]],
                "width": [len(atoms)],
                "n_selected": [len(chosen)],
                "mean_abs_cos": [whole.mean_abs],
                "max_abs_cos": [whole.max_abs],
                "mu_selected": [selected.mu if selected else 0.0],
                "mu_minus_selected": [selected.mu_minus if selected else 0.0],
                "c_star_selected": [c_star(chosen @ chosen.T)],
                "r2": [moments.r2],
                "eps_mean": [moments.eps_mean],
            }
        )

    @classmethod
    def of(cls, layer: int, dictionary: Dictionary, features: pd.DataFrame) -> LayerSet:
        sets = {
            "reasoning": np.flatnonzero(features["selected"]),
            "matched": np.flatnonzero(features["matched"]),
            **{f"top{n}": top_features(features, n) for n in TOP},
        }
        union = np.unique(np.concatenate(list(sets.values())))
        return cls(
            layer,
            dictionary,
            features,
            torch.from_numpy(union),
            {name: np.searchsorted(union, members) for name, members in sets.items()},
        )


class Spans:
    """Which tokens of a response belong to a scope: "response" is thought and answer, "answer" the answer alone."""

    def __init__(self, responses: pd.DataFrame) -> None:
        names = ("thought_start", "thought_end", "answer_start", "answer_end")
        self._bounds = {name: responses[name].to_numpy(dtype=np.int64) for name in names}

    def mask(self, batch: Batch, scope: str) -> Float[torch.Tensor, " n"]:
        """1 for the batch's tokens in the scope, else 0 (float64, to be summed with)."""
        bounds = {name: values[batch.response_index] for name, values in self._bounds.items()}
        inside = (batch.position >= bounds["answer_start"]) & (batch.position < bounds["answer_end"])
        if scope == "response":
            inside |= (batch.position >= bounds["thought_start"]) & (batch.position < bounds["thought_end"])
        return torch.from_numpy(inside.astype(np.float64))


def choose_features(
    opened: OpenModel,
    responses: pd.DataFrame,
    dictionaries: Mapping[int, Dictionary],
    progress: str | None = None,
) -> dict[int, pd.DataFrame]:
    """First pass: `select_features` of every layer, on the split select. Memory: 2 × problems × layers × width floats.

    Raises NormprobeError if fewer than two problems were answered with tokens in both modes.
    """
    chosen = responses[
        (responses["split"] == "select") & responses["mode"].isin(CONTRASTED) & (responses["sample"] == 0)
    ]
    chosen = chosen.reset_index(drop=True)
    problems = pd.Index(chosen["problem_id"].unique())
    row = problems.get_indexer(pd.Index(chosen["problem_id"]))
    column = chosen["mode"].map(CONTRASTED.index).to_numpy()
    width = next(iter(dictionaries.values())).width
    means = {layer: np.full((2, len(problems), width), np.nan, dtype=np.float32) for layer in dictionaries}
    spans = Spans(chosen)
    for batch in _stream(opened, chosen, ["select"], progress):
        local, index = np.unique(batch.response_index, return_inverse=True)
        member = _membership(index, len(local), spans.mask(batch, "response"))
        count = member.sum(dim=1, keepdim=True)
        for layer, dictionary in dictionaries.items():
            z = dictionary.encode(batch.states[layer]).double().cpu()
            means[layer][column[local], row[local]] = (member @ z / count).numpy()  # NaN without a token
    result = {}
    for layer, values in means.items():
        known = np.isfinite(values).all(axis=(0, 2))
        if known.sum() < 2:
            raise NormprobeError(
                f"expected at least 2 problems of the split 'select' answered in both modes, got {int(known.sum())}; "
                "give more problems or a larger max_new_tokens"
            )
        result[layer] = select_features(values[0, known], values[1, known])
    return result


def _membership(
    index: Int[np.ndarray, " n"], n_responses: int, mask: Float[torch.Tensor, " n"]
) -> Float[torch.Tensor, "response n"]:
    """member[r, t] = 1 where token t is in the scope of response r."""
    member = torch.zeros(n_responses, len(index), dtype=torch.float64)
    member[torch.from_numpy(index), torch.arange(len(index))] = mask
    return member


def _stream(
    opened: OpenModel, responses: pd.DataFrame, splits: Sequence[str], progress: str | None
) -> Iterator[Batch]:
    n = int(responses["split"].isin(list(splits)).sum())
    with tqdm(total=n, desc=progress, unit="response", disable=progress is None) as bar:
        for batch in stream_states(opened, responses, splits):
            yield batch
            bar.update(len(np.unique(batch.response_index)))


@dataclass(frozen=True)
class Reduction:
    """What one arm leaves: see the tables in `normprobe.saes.stages`."""

    features: pd.DataFrame
    sums: pd.DataFrame
    pairs: pd.DataFrame
    dictionary: pd.DataFrame
    tokens: dict[str, Float[np.ndarray, "layer token"]]


def reduce_arm(
    arm: str,
    opened: OpenModel,
    responses: pd.DataFrame,
    dictionaries: Mapping[int, Dictionary],
    *,
    progress: bool = True,
) -> Reduction:
    """Both passes for the dictionaries (layer → dictionary) of one arm."""
    label = f"{arm}: select features" if progress else None
    features = choose_features(opened, responses, dictionaries, label)
    layers = [LayerSet.of(layer, dictionary, features[layer]) for layer, dictionary in dictionaries.items()]
    offsets, n_tokens = token_offsets(responses, SPLITS)
    names = {"z_reasoning": "reasoning", "z_matched": "matched", "z_total": None}
    tokens = {name: np.zeros((len(layers), n_tokens), dtype=np.float32) for name in names}
    spans, moments = Spans(responses), [_Moments() for _ in layers]
    states = [MeanStates.empty(len(responses), one.kept_atoms.cpu().numpy()) for one in layers]
    counted = (responses["split"].eq("measure") & responses["mode"].isin(CONTRASTED)).to_numpy()
    for batch in _stream(opened, responses, SPLITS, f"{arm}: reduce" if progress else None):
        local, index = np.unique(batch.response_index, return_inverse=True)
        place = offsets[batch.response_index] + batch.position
        masks = {scope: spans.mask(batch, scope) for scope in SCOPES}
        spoken = masks["response"].bool() & torch.from_numpy(counted[batch.response_index])
        for i, one in enumerate(layers):
            z = one.dictionary.encode(batch.states[one.layer])
            kept = z[:, one.union.to(z.device)].cpu().double()
            for name, members in names.items():
                values = z.sum(dim=1).cpu() if members is None else kept[:, one.sets[members]].sum(dim=1)
                tokens[name][i, place] = values.numpy()
            reconstruction = one.dictionary.decode(z).cpu().double()
            hidden = batch.states[one.layer].cpu().double()
            moments[i].add(hidden[spoken], reconstruction[spoken])
            for scope, name in enumerate(SCOPES):
                member = _membership(index, len(local), masks[name])
                states[i].fill(
                    scope, local, member, hidden, reconstruction, kept, one.kept_atoms.cpu().double()
                )
    parts = list(zip(layers, states, moments, strict=True))
    return Reduction(
        features=_stack(arm, ((one.layer, one.features) for one in layers)),
        sums=_stack(arm, ((one.layer, sums_table(means, responses, one.sets)) for one, means, _ in parts)),
        pairs=_stack(
            arm,
            ((one.layer, pairs_table(means, responses, one.sets["reasoning"])) for one, means, _ in parts),
        ),
        dictionary=_stack(arm, ((one.layer, one.describe(moment)) for one, _, moment in parts)),
        tokens=tokens,
    )


def _stack(arm: str, tables: Iterable[tuple[int, pd.DataFrame]]) -> pd.DataFrame:
    """The layers' tables below each other, labelled with arm and layer in front."""
    frames = []
    for layer, table in tables:
        labelled = table.copy()
        labelled.insert(0, "arm", arm)
        labelled.insert(1, "layer", layer)
        frames.append(labelled)
    return pd.concat(frames, ignore_index=True)


@dataclass
class _Moments:
    """Running sums for R² = 1 − Σ‖r‖²/Σ‖h − h̄‖² and the mean of ‖r‖/‖h‖."""

    n: int = 0
    total: Float[torch.Tensor, " d"] | None = None
    square: float = 0.0
    residual: float = 0.0
    ratio: float = 0.0

    def add(self, states: Float[torch.Tensor, "n d"], reconstruction: Float[torch.Tensor, "n d"]) -> None:
        residual = (states - reconstruction).square().sum(dim=1)
        square = states.square().sum(dim=1)
        summed = states.sum(dim=0)
        self.total = summed if self.total is None else self.total + summed
        self.n += len(states)
        self.square += float(square.sum())
        self.residual += float(residual.sum())
        self.ratio += float((residual / square).sqrt().sum())

    @property
    def r2(self) -> float:
        if self.total is None or not self.n:
            return float("nan")
        return 1 - self.residual / (self.square - float(self.total.square().sum()) / self.n)

    @property
    def eps_mean(self) -> float:
        return self.ratio / self.n if self.n else float("nan")
