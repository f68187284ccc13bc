"""Token injection: does a feature fire in a response without a thought as soon as some tokens stand in it?

After arXiv 2601.05679 and its code (GeorgeMLP/reasoning-probing, run_token_injection_experiment.py): the triggers of a
feature are the 10 tokens of highest mean activation among those that come at least 5 times, here in the split select;
3 of them, drawn anew for each response, are inserted into a no_think response of the split measure, each at a random
place of its answer; the maximum over the response is compared with that before (see `dependence`). The paper takes
the best of eight ways to insert; this is one of them ("intersperse"), so that nothing is chosen by the result. The
control is ours: as many tokens of like frequency that are no triggers, at the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from normprobe.feature_pages.activity import LayerActivity, TracedTokens, codes
from normprobe.feature_pages.dependence import class_of, cohens_d
from normprobe.feature_pages.token_sums import TokenSums
from normprobe.models.model import OpenModel
from normprobe.saes.dictionary import Dictionary
from normprobe.saes.features import match
from normprobe.tracing.stream import Piece, check_finite, stream_states

N_TRIGGERS, LEAST_COUNT, N_INSERTED = 10, 5, 3
SPANS = ("thought_start", "thought_end", "answer_start", "answer_end")


@dataclass(frozen=True)
class Injection:
    """What inserting tokens does to one feature: Cohen's d and p, of its maximum over a response; the class that they
    give; and how far its mean over a response moves, in activation units."""

    d: float
    p: float
    dependence: str
    shift: float


def trigger_tokens(
    select: TokenSums, feature: int
) -> tuple[Int[np.ndarray, " trigger"], Int[np.ndarray, " control"]]:
    """The triggers of a feature, the strongest first, and for each another token of like count, as numbers of ids.

    Triggers have a mean activation above 0; there may be fewer than 10, or none.
    """
    usual = np.flatnonzero(select.n >= LEAST_COUNT)
    mean = select.mean[usual, feature]
    first = np.argsort(-mean, kind="stable")[:N_TRIGGERS]
    first = first[mean[first] > 0]
    is_trigger = np.isin(np.arange(len(usual)), first)
    return usual[first], usual[match(select.n[usual].astype(np.float64), is_trigger)]


def choose_texts(tokens: TracedTokens, n: int, rng: np.random.Generator) -> Int[np.ndarray, " text"]:
    """At most n no_think responses of the split measure that hold an answer, as rows, drawn without replacement."""
    table = tokens.responses
    fit = (table["answer_end"] > table["answer_start"]) & (table["mode"] == "no_think") & tokens.measured
    rows = np.flatnonzero(fit)
    return np.sort(rng.permutation(rows)[:n])


def inject(
    opened: OpenModel,
    tokens: TracedTokens,
    texts: Int[np.ndarray, " text"],
    dictionary: Dictionary,
    layer: int,
    features: Sequence[int],
    activity: LayerActivity,
    rng: np.random.Generator,
    memory: int | None = None,
) -> dict[int, tuple[Injection, Injection]]:
    """Of each feature (its place in `features`): what its triggers do, and what the control tokens at the same places.

    A feature without triggers or controls is left out. Raises NormprobeError if a state is not finite, or as
    `stream_states` does.
    """
    rows = []
    for feature in range(len(features)):
        pools = trigger_tokens(activity.identity["select"], feature)
        if all(map(len, pools)):
            for _, text in tokens.responses.iloc[texts].iterrows():
                places = rng.integers(text["answer_start"], text["answer_end"] + 1, size=N_INSERTED)
                for pool in pools:
                    drawn = tokens.distinct[rng.permutation(pool)[:N_INSERTED]]
                    rows.append((feature, *_inserted(text, drawn, places[: len(drawn)])))
    if not rows:
        return {}
    table = pd.DataFrame(rows, columns=["feature", "token_ids", *SPANS]).assign(split="measure")
    maxima, means = _read(opened, table, dictionary, layer, features, memory)
    found = {}
    for feature in sorted(set(table["feature"])):
        own = np.flatnonzero(table["feature"] == feature)
        plain = activity.maxima[texts, feature], activity.means[texts, feature]
        # For each text one with triggers, then one with controls.
        triggers, controls = (_injection(maxima[some], means[some], *plain) for some in (own[::2], own[1::2]))
        found[feature] = triggers, controls
    return found


def _inserted(
    text: pd.Series, drawn: Int[np.ndarray, " token"], places: Int[np.ndarray, " token"]
) -> tuple[Any, ...]:
    """Token ids of a response with tokens inserted before these positions of its answer, and its spans then."""
    ids = np.insert(np.asarray(text["token_ids"]), places, drawn)
    return ids, *(text[name] for name in SPANS[:-1]), text["answer_end"] + len(drawn)


def _read(
    opened: OpenModel,
    table: pd.DataFrame,
    dictionary: Dictionary,
    layer: int,
    features: Sequence[int],
    memory: int | None,
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Maximum and mean over thought and answer of the feature of each row of `table`."""
    feature, spans = table["feature"].to_numpy(), table[list(SPANS)].to_numpy().reshape(-1, 2, 2)
    maximum, total = np.zeros(len(table)), np.zeros(len(table))

    def visit(piece: Piece) -> None:
        if piece.layer != layer:
            return
        check_finite(piece, "model")
        row = piece.response_index
        z = codes(dictionary, piece.h, features, memory)[np.arange(len(row)), feature[row]]
        position = piece.position[:, None]
        inside = ((spans[row, :, 0] <= position) & (position < spans[row, :, 1])).any(axis=1)
        np.maximum.at(maximum, row[inside], z[inside])
        np.add.at(total, row[inside], z[inside])

    stream_states(opened, table, ["measure"], visit, memory and memory // 2)
    return maximum, total / (spans[:, :, 1] - spans[:, :, 0]).sum(axis=1)


def _injection(
    maxima: Float[np.ndarray, " text"],
    means: Float[np.ndarray, " text"],
    plain_maxima: Float[np.ndarray, " text"],
    plain_means: Float[np.ndarray, " text"],
) -> Injection:
    d, p = cohens_d(maxima, plain_maxima)
    return Injection(d, p, class_of(d, p), float((means - plain_means).mean()))
