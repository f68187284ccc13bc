"""The conditions of a run in numbers: what the responses of each mode are, before any verdict rests on them."""

from __future__ import annotations

import pandas as pd

from normprobe.claims.conditions import failures
from normprobe.report.table import Cells, cells, count


def conditions_table(conditions: pd.DataFrame) -> Cells:
    """A row per mode: how the family is asked for it, n, and shares of its responses."""
    return cells(
        [
            {
                "mode": str(row["mode"]),
                "asked": str(row["asked"]),
                "responses": count(int(row["n"])),
                "with a thought": _share(row["thought"]),
                "leaked": _share(row["leaked"]),
                "truncated": _share(row["truncated"]),
                "answered": _share(row["answered"]),
                "right": _share(row["correct"]),
            }
            for row in conditions.to_dict("records")
        ]
    )


def conditions_line(conditions: pd.DataFrame) -> str:
    """The shares that verdicts rest on, on one line: `with a thought: think 100%, no_think 0%; truncated: 0%`."""
    head, rows = conditions_table(conditions)

    def shares(column: str) -> str:
        by_mode = {row[0]: row[head.index(column)] for row in rows}
        if len({*by_mode.values()}) == 1:
            return f"{column}: {next(iter(by_mode.values()))}"
        return f"{column}: {', '.join(f'{mode} {share}' for mode, share in by_mode.items())}"

    return "; ".join(map(shares, ("with a thought", "truncated", "right")))


def conditions_text(conditions: pd.DataFrame) -> str:
    """The table for a terminal, and below it what has failed."""
    head, rows = conditions_table(conditions)
    return "\n".join([pd.DataFrame(rows, columns=head).to_string(index=False), *failed(conditions)])


def failed(conditions: pd.DataFrame) -> list[str]:
    """A line for every mode that is not what it should be."""
    return [f"condition failed: {line}" for line in failures(conditions).values()]


def _share(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.0%}"
