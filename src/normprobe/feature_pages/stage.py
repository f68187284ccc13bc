"""Filling the stage features/ of a run: the tables behind the pages, and the same for Neuronpedia."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from normprobe.config import FeatureSettings
from normprobe.errors import NormprobeError
from normprobe.feature_pages.activity import EDGES, LayerActivity, TracedTokens, read_activity
from normprobe.feature_pages.chosen import MATCHED, choose
from normprobe.feature_pages.directions import TOKENS, logit_effects, neighbours
from normprobe.feature_pages.injection import Injection, choose_texts, inject, trigger_tokens
from normprobe.feature_pages.neuronpedia import write_batches
from normprobe.feature_pages.token_sums import explained
from normprobe.models.model import OpenModel
from normprobe.runs.layout import FILES
from normprobe.saes.activations import PAIRED
from normprobe.saes.dictionary import Dictionary
from normprobe.saes.reductions import SPLITS
from normprobe.thinking_formats import MODES

Row = dict[str, Any]
LOGIT_BINS = 50


def fill_features(
    folder: Path,
    opened: OpenModel,
    responses: pd.DataFrame,
    features: pd.DataFrame,
    dictionaries: Mapping[int, Dictionary],
    *,
    settings: FeatureSettings,
    seed: int,
    source: str,
    memory: int | None = None,
    progress: bool = True,
) -> None:
    """Write the tables of features/ and neuronpedia/layer_NN/batch-0.json, for the features that `choose` takes.

    features: the table of the reader "model", whose dictionaries by layer are given. source: where the problems come
    from, for Neuronpedia. memory: bytes above the weights that reading may take (None: as it is fastest).
    Raises NormprobeError if there is no reasoning feature, if states are not finite, or if the memory does not suffice.
    """
    chosen = choose(features, settings.per_layer)
    if chosen.empty:
        raise NormprobeError(
            "expected reasoning features to write pages on, got none in any layer; give more problems to select on"
        )
    tokens = TracedTokens(responses.reset_index(drop=True), np.random.default_rng(seed))
    by_layer: dict[int, list[int]] = {}
    for layer, feature in zip(chosen["layer"], chosen["feature"], strict=True):
        by_layer.setdefault(int(layer), []).append(int(feature))
    n = int(responses.loc[responses["split"].isin(list(SPLITS)), "token_ids"].map(len).sum())
    bar = partial(tqdm, disable=not progress)
    with bar(total=n * len(by_layer), desc="read features", unit="token", unit_scale=True) as read:
        activity = read_activity(opened, tokens, dictionaries, by_layer, memory=memory, on_tokens=read.update)
    texts = choose_texts(tokens, settings.n_injected, np.random.default_rng([seed, 1]))
    reasoning = features[features["selected"]].groupby("layer")["feature"].apply(set).to_dict()
    tables: dict[str, list[Row]] = {
        name: [] for name in ("pages", "examples", "tokens", "neighbours", "histograms")
    }
    for layer, own in bar(by_layer.items(), desc="inject tokens", unit="layer"):
        rng = np.random.default_rng([seed, 2, layer])
        injected = inject(
            opened, tokens, texts, dictionaries[layer], layer, own, activity[layer], rng, memory
        )
        page = _Pages(opened, tokens, layer, own, activity[layer])
        tables["pages"] += page.measurements(injected, len(texts))
        tables["examples"] += page.examples()
        tables["tokens"] += page.tokens(effects := logit_effects(opened, dictionaries[layer].atoms[own]))
        tables["neighbours"] += page.neighbours(dictionaries[layer], reasoning[layer])
        tables["histograms"] += [*page.histograms(), *page.logit_histograms(effects)]
    # By name, since there is no example where no feature fires, and then no row to take names from.
    examples = FILES["feature_examples"].columns
    named = {"examples": examples and list(examples.by_name)}
    frames = {name: pd.DataFrame(rows, columns=named.get(name)) for name, rows in tables.items()}
    frames["pages"] = chosen.merge(frames["pages"], on=["layer", "feature"])
    # What a control does not do more in think has no fraction.
    frames["pages"].loc[chosen["kind"] == MATCHED, ["trigger_fraction", "control_fraction"]] = np.nan
    for name, frame in frames.items():
        FILES[f"feature_{name}"].write(folder, frame)
    write_batches(folder, frames, opened.identity.name, source, responses)


class _Pages:
    """The rows of the tables for the chosen features of one layer."""

    def __init__(
        self,
        opened: OpenModel,
        tokens: TracedTokens,
        layer: int,
        features: list[int],
        activity: LayerActivity,
    ) -> None:
        self._traced, self._activity = tokens, activity
        self._layer, self._features = layer, features
        self._text = cache(lambda token_id: str(opened.tokenizer.decode([token_id])))

    def _keys(self) -> Iterator[tuple[int, Row]]:
        for place, feature in enumerate(self._features):
            yield place, {"layer": self._layer, "feature": feature}

    def measurements(self, injected: Mapping[int, tuple[Injection, Injection]], n_texts: int) -> list[Row]:
        """Whether tokens trigger a feature: what their identity explains, and what inserting them does."""
        activity, rows = self._activity, []
        r2 = {
            name: explained(sums["select"], sums["measure"])
            for name, sums in (("r2_tokens", activity.identity), ("r2_shuffled", activity.shuffled))
        }
        think, no_think = (activity.mean_in(mode) for mode in PAIRED)
        for place, keys in self._keys():
            row = keys | {name: values[place] for name, values in r2.items()}
            row |= {"difference": (difference := think[place] - no_think[place]), "n_texts": n_texts}
            pair = injected.get(place, (None, None))
            for name, one in zip(("trigger", "control"), pair, strict=True):
                row[f"{name}_d"] = one.d if one else np.nan
                row[f"{name}_p"] = one.p if one else np.nan
                row[f"{name}_dependence"] = one.dependence if one else None
                row[f"{name}_fraction"] = one.shift / difference if one and difference > 0 else np.nan
            rows.append(row)
        return rows

    def examples(self) -> list[Row]:
        rows = []
        for place, keys in self._keys():
            for rank, example in enumerate(self._activity.examples[place]):
                response = self._traced.responses.iloc[example.response]
                shown = response["token_ids"][example.start : example.start + len(example.values)]
                rows.append(
                    keys
                    | {"rank": rank, **response[["response_id", "problem_id", "mode"]]}
                    | {"position": example.position, "activation": example.activation}
                    | {"place": example.position - example.start}
                    | {"tokens": json.dumps([self._text(int(token)) for token in shown])}
                    | {"values": json.dumps([round(float(value), 4) for value in example.values])}
                )
        return rows

    def tokens(self, effects: np.ndarray) -> list[Row]:
        """Triggers and their controls, with mean activations in the split select; promoted and demoted tokens."""
        rows = []
        for place, keys in self._keys():
            select = self._activity.identity["select"]
            for name, pool in zip(("trigger", "control"), trigger_tokens(select, place), strict=True):
                values = select.mean[pool, place]
                rows += self._ranked(keys, name, self._traced.distinct[pool], values, select.n[pool])
            order = np.argsort(-effects[place], kind="stable")
            for name, ids in (("promoted", order[:TOKENS]), ("demoted", order[::-1][:TOKENS])):
                rows += self._ranked(keys, name, ids, effects[place, ids], np.full(len(ids), None))
        return rows

    def _ranked(
        self, keys: Row, name: str, ids: np.ndarray, values: np.ndarray, counts: np.ndarray
    ) -> Iterator[Row]:
        for rank, (token, value, n) in enumerate(zip(ids.tolist(), values, counts, strict=True)):
            yield (
                keys
                | {"list": name, "rank": rank, "token_id": token, "token": self._text(token)}
                | {
                    "value": float(value),
                    "n": n,
                }
            )

    def neighbours(self, dictionary: Dictionary, reasoning: set[int]) -> list[Row]:
        indices, cosines = neighbours(dictionary.atoms, self._features)
        return [
            keys | {"rank": rank, "neighbour": other, "cosine": cosine, "selected": other in reasoning}
            for place, keys in self._keys()
            for rank, (other, cosine) in enumerate(zip(indices[place].tolist(), cosines[place], strict=True))
        ]

    def histograms(self) -> Iterator[Row]:
        """Bins that hold a token of the mode; the first, of silent tokens, from 0 to 0."""
        low, high = np.append(0, EDGES[:-1]), np.append(0, EDGES[1:])
        for place, keys in self._keys():
            for mode, counts in zip(MODES, self._activity.counts[:, :, place], strict=True):
                for i in np.flatnonzero(counts):
                    yield keys | {"of": mode, "low": low[i], "high": high[i], "n": counts[i]}

    def logit_histograms(self, effects: np.ndarray) -> Iterator[Row]:
        for place, keys in self._keys():
            counts, edges = np.histogram(effects[place], bins=LOGIT_BINS)
            for n, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
                yield keys | {"of": "logits", "low": low, "high": high, "n": n}
