"""Conditions: whether the responses are what the claims take them for. Checked before any claim is judged.

A claim compares thinking with not thinking. Where think does not think, no_think does, or most responses are cut off,
no verdict that rests on that mode is given. Most is more than half: nothing here is tuned.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from normprobe.thinking_formats import MODES

_MOST = 0.5


def measure_conditions(responses: pd.DataFrame) -> pd.DataFrame:
    """A row per mode: how it was asked for, n, and as shares thought, leaked, truncated, answered, correct.

    thought: the thought holds a token. leaked: a thought came although the prompt had closed it. truncated: cut off at
    the limit, or the thought never ended. correct: of those that can be judged, NaN if none can.
    """
    flags = pd.DataFrame(
        {
            "mode": responses["mode"],
            "asked": responses["asked"],
            "thought": responses["thought_start"] >= 0,
            "leaked": responses["leaked"],
            "truncated": responses["truncated"] | (responses["finish"] == "length"),
            "answered": responses["answer_start"] >= 0,
            "correct": responses["correct"].astype("Float64"),
        }
    )
    by_mode = flags.groupby(["mode", "asked"])
    table = by_mode.mean().astype("float64")
    table.insert(0, "n", by_mode.size())
    return table.reset_index().sort_values("mode", key=lambda mode: mode.map(MODES.index), ignore_index=True)


def failures(conditions: pd.DataFrame) -> Mapping[str, str]:
    """What is wrong with a mode, in a line, for every mode that is not what it should be."""
    found: dict[str, str] = {}
    for row in conditions.to_dict("records"):
        mode, n = str(row["mode"]), int(row["n"])
        counts = {name: round(row[name] * n) for name in ("thought", "leaked", "truncated")}
        faults = {
            f"only {counts['thought']} of {n} responses hold a thought": mode == "think"
            and row["thought"] <= _MOST,
            f"{counts['leaked']} of {n} responses think although the thought was closed": row["leaked"]
            > _MOST,
            f"{counts['truncated']} of {n} responses are cut off, or end within their thought": row[
                "truncated"
            ]
            > _MOST,
        }
        if what := [fault for fault, holds in faults.items() if holds]:
            found[mode] = f"in {mode} {' and '.join(what)}"
    return found
