"""The assumption table: what each assumption asks for, and what the dictionaries give, over layers."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from normprobe.claims.measure.readers import READER_NAMES
from normprobe.report.table import number

HEAD = ("Quantity", "Threshold", "Decides")


def assumption_table(series: pd.DataFrame) -> tuple[tuple[str, ...], list[list[str]]]:
    """Head and rows of text from the series of the claim `assumptions`: one row per quantity, one column per reader.

    A cell reads `0.071 to 0.083 (0/10)`: the lowest and the highest layer, and in how many of the layers it holds.
    """
    readers = [reader for reader in READER_NAMES if reader in set(series["reader"])]
    head = (*HEAD, *(READER_NAMES[reader] for reader in readers))
    return head, [
        [*_asked(rows), *_given(rows, readers)] for _, rows in series.groupby("quantity", sort=False)
    ]


def _asked(rows: pd.DataFrame) -> Iterator[str]:
    first = rows.iloc[0]
    yield f"{first['assumption']}: {first['quantity']}"
    yield f"{first['direction']} {first['threshold']:.3g}"
    yield "yes" if first["decides"] else "no"


def _given(rows: pd.DataFrame, readers: list[str]) -> Iterator[str]:
    for reader in readers:
        mine = rows[rows["reader"] == reader]
        low, high = number(float(mine["value"].min())), number(float(mine["value"].max()))
        span = low if low == high else f"{low} to {high}"
        yield f"{span} ({int(mine['passes'].sum())}/{len(mine)})"
