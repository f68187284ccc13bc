"""The assumption table: what each assumption asks for, and what the dictionaries give, over layers."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from normprobe.claims.judgement import ARM_NAMES
from normprobe.report.table import number

HEAD = ("Quantity", "Threshold", "Decides")


def assumption_table(series: pd.DataFrame) -> tuple[tuple[str, ...], list[list[str]]]:
    """Head and rows of text from the series of the claim `assumptions`: one row per quantity, one column per arm.

    A cell reads `0.071 to 0.083 (0/10)`: the lowest and the highest layer, and in how many of the layers it holds.
    """
    arms = [arm for arm in ARM_NAMES if arm in set(series["arm"])]
    head = (*HEAD, *(ARM_NAMES[arm] for arm in arms))
    return head, [[*_asked(rows), *_given(rows, arms)] for _, rows in series.groupby("quantity", sort=False)]


def _asked(rows: pd.DataFrame) -> Iterator[str]:
    first = rows.iloc[0]
    yield f"{first['assumption']}: {first['quantity']}"
    yield f"{first['direction']} {first['threshold']:.3g}"
    yield "yes" if first["judged"] else "no"


def _given(rows: pd.DataFrame, arms: list[str]) -> Iterator[str]:
    for arm in arms:
        mine = rows[rows["arm"] == arm]
        low, high = number(float(mine["value"].min())), number(float(mine["value"].max()))
        span = low if low == high else f"{low} to {high}"
        yield f"{span} ({int(mine['passes'].sum())}/{len(mine)})"
