"""What the report's token explorer shows: responses of some problems in every mode, token by token, with their signals.

Which problems, and how much of a response, are fixed rules. Values travel as whole numbers of 16 bits between the
lowest and the highest of their signal and layer, which is far below what the eye or three digits could tell apart.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.claims.measure.readers import NAMES
from normprobe.report import heatmap
from normprobe.report.findings import NothingToDraw
from normprobe.runs.tables import Tables
from normprobe.style import MODE_LINES

MOST_TOKENS, MOST_PROBLEMS, MOST_BYTES = 400, 24, 1_600_000
"""Of a response, of the page, and of all values in the page as they stand there."""
MISSING = 0xFFFF
UNITS = {"norm": "activation units", "z_reasoning": "activation units"}


@dataclass(frozen=True)
class Signal:
    """A signal of every token, in nats or activation units: a row of `values` for each of `layers`, or a single one
    for what has no layer."""

    key: str
    name: str
    layers: list[int] | None
    values: Float[np.ndarray, "row token"]

    def described(self, low: Sequence[float], high: Sequence[float]) -> dict[str, Any]:
        """What the page knows of it: `low` and `high` are the values that 0 and `MISSING` − 1 stand for, by row."""
        unit = UNITS.get(self.key, "nats")
        return {
            "key": self.key,
            "name": self.name,
            "unit": unit,
            "layers": self.layers,
            "low": low,
            "high": high,
        }


def token_data(tables: Tables) -> dict[str, Any]:
    """The explorer's data, as JSON holds it: `n_layers`, `signals` (see `Signal.described`), `segments` and `roles`
    (names), and `problems` with a response per mode.

    Of a response: tokens and `start` (the place of the first in the sequence), `segments` and `roles` (places in those
    lists, −1 for none), `cut` (tokens left out at the end), `values` by signal (base64 of little-endian uint16, rows
    one after the other; `MISSING`: not measured). Raises NothingToDraw for a run that traced no problem of the split
    measure.
    """
    problems = _in_order(tables)
    if not problems:
        raise NothingToDraw("This run traced no response of the split measure.")
    signals = _signals(tables)
    tokens = tables.tokens[tables.tokens["segment"] != "prompt"]
    rows = dict(iter(tokens[tokens["sample"] == 0].groupby("response_id", sort=False)))
    responses = tables.responses.set_index("response_id")
    room = MOST_BYTES // (8 * sum(len(signal.values) for signal in signals) // 3)
    chosen: list[tuple[str, dict[str, pd.DataFrame]]] = []
    for problem in problems:
        modes = {mode: rows.get(f"{problem}/{mode}/0") for mode in MODE_LINES}
        shown = {mode: table[:MOST_TOKENS] for mode, table in modes.items() if table is not None}
        room -= sum(map(len, shown.values()))
        if chosen and (room < 0 or len(chosen) == MOST_PROBLEMS):
            break
        chosen.append((problem, shown))
    at = np.concatenate([table.index.to_numpy() for _, shown in chosen for table in shown.values()])
    ends = {signal.key: _ends(signal.values[:, at]) for signal in signals}
    segments, roles = (sorted(tokens[name].dropna().unique()) for name in ("segment", "role"))

    def response(table: pd.DataFrame) -> dict[str, Any]:
        response_id = str(table["response_id"].iloc[0])
        about = responses.loc[response_id]
        return {
            "mode": str(about["mode"]),
            "correct": _known(about["correct"], bool),
            "truncated": bool(about["truncated"]),
            "start": int(table["position"].iloc[0]),
            "cut": len(rows[response_id]) - len(table),
            "tokens": [heatmap.visible(token) for token in table["token"]],
            "segments": _places(table["segment"], segments),
            "roles": _places(table["role"], roles),
            "values": {s.key: _coded(s.values[:, table.index], *ends[s.key]) for s in signals},
        }

    asked = tables.problems.set_index("problem_id")
    return {
        "n_layers": len(signals[0].values),
        "signals": [signal.described(*(end.tolist() for end in ends[signal.key])) for signal in signals],
        "segments": segments,
        "roles": roles,
        "problems": [
            {
                "id": problem,
                **{
                    name: _known(value, lambda value: cell_text(str(value)))
                    for name, value in asked.loc[
                        problem, ["domain", "difficulty", "question", "answer"]
                    ].items()
                },
                "responses": [response(table) for table in shown.values()],
            }
            for problem, shown in chosen
        ],
    }


def _signals(tables: Tables) -> list[Signal]:
    """Those that the run has, the norm first."""
    arrays = tables.signals("model")
    found = [
        Signal(key, NAMES[key], None if values.ndim == 1 else [*range(len(values))], np.atleast_2d(values))
        for key in NAMES
        if (values := arrays.get(key)) is not None
    ]
    if tables.has("z/model") and tables.has("dictionary"):
        z = tables.z("model")["z_reasoning"]
        found.append(Signal("z_reasoning", "reasoning features, Σ z", tables.layers("model"), z))
    return found


def _in_order(tables: Tables) -> list[str]:
    """The traced problems of the split measure: that of the excerpt, where there is one, then one of each domain and
    difficulty in turn."""
    if not all(tables.has(name) for name in ("problems", "responses", "tokens", "signals/model")):
        return []
    tokens = tables.tokens
    traced = tokens.loc[
        (tokens["split"] == "measure") & (tokens["segment"] != "prompt"), "problem_id"
    ].unique()
    problems = tables.problems[tables.problems["problem_id"].isin(traced)].sort_values("problem_id")
    groups = problems.groupby(["domain", "difficulty"], dropna=False)["problem_id"]
    order = [
        problem
        for turn in zip_longest(*(ids for _, ids in groups))
        for problem in turn
        if problem is not None
    ]
    with suppress(NothingToDraw):
        first = heatmap.choose(tables).response_id
        order.sort(key=lambda problem: not first.startswith(f"{problem}/"))
    return order


def cell_text(value: str) -> str:
    """A cell of a problem as text: its line breaks stay, and of a gold answer that names its task only the answer."""
    if value.startswith('{"task": '):
        with suppress(ValueError, KeyError, TypeError):
            value = str(json.loads(value)["answer"])
    return "\n".join(map(heatmap.printable, value.strip().replace("\r\n", "\n").split("\n")))


def _known(value: Any, read: Callable[[Any], Any]) -> Any:
    """The value as JSON holds it, None where it is missing."""
    return None if pd.isna(value) else read(value)


def _places(names: pd.Series, known: list[str]) -> list[int]:
    return pd.Categorical(names, known).codes.tolist()


def _ends(values: Float[np.ndarray, "row token"]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest finite value of each row to six digits, 0 where a row has none."""
    finite = np.isfinite(values)
    low = np.where(finite, values, np.inf).min(axis=1)
    high = np.where(finite, values, -np.inf).max(axis=1)
    ends = np.where(finite.any(axis=1), [low, high], 0.0)
    return _short(ends[0]), _short(ends[1])


def _short(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.6g}") for value in values])


def _coded(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    span = np.maximum(high - low, np.finfo(np.float32).tiny)[:, None]
    share = np.clip((values.astype(np.float64) - low[:, None]) / span, 0.0, 1.0)
    steps = np.where(np.isfinite(values), np.nan_to_num(np.round(share * (MISSING - 1))), MISSING)
    return base64.b64encode(steps.astype("<u2").tobytes()).decode("ascii")
