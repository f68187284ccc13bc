"""The assumption table: what each assumption asks for, and what the dictionaries give, over layers."""

from __future__ import annotations

import pandas as pd

from normprobe.claims.measure.readers import READER_NAMES
from normprobe.report.table import Cells, cells, number


def assumption_table(series: pd.DataFrame) -> Cells:
    """From the series of the claim `assumptions`: one row per quantity, one column per reader.

    A cell reads `0.071 to 0.083 (0/10)`: the lowest and the highest layer, and in how many of the layers it holds.
    """
    rows = []
    for _, of_quantity in series.groupby("quantity", sort=False):
        first = of_quantity.iloc[0]
        asked = {
            "Quantity": f"{first['assumption']}: {first['quantity']}",
            "Threshold": f"{first['direction']} {first['threshold']:.3g}",
            "Decides": "yes" if first["decides"] else "no",
        }
        by_reader = dict(iter(of_quantity.groupby("reader")))
        rows.append(
            asked | {name: _given(by_reader[key]) for key, name in READER_NAMES.items() if key in by_reader}
        )
    return cells(rows)


def _given(rows: pd.DataFrame) -> str:
    low, high = number(float(rows["value"].min())), number(float(rows["value"].max()))
    span = low if low == high else f"{low} to {high}"
    return f"{span} ({int(rows['passes'].sum())}/{len(rows)})"
