"""The curves over layers behind the claims' figures, as the report's script draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from normprobe.claims.measure.readers import NAMES, READER_NAMES
from normprobe.report.findings import Finding
from normprobe.style import MODE_LINES

COLUMNS = ["quantity", "name", "layer", "estimate", "low", "high"]


def curve_data(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Of every quantity that a claim has by layer: `claim`, `title` (the claim's), `quantity`, and `curves` by name
    (`layers`, `estimate`, `low`, `high` to four digits, None where not computed)."""
    return [
        {
            "claim": finding.claim.name,
            "title": finding.claim.title,
            "quantity": NAMES.get(str(quantity), str(quantity)),
            "curves": [_curve(str(name), curve) for name, curve in rows.groupby("name", sort=False)],
        }
        for finding in findings
        for quantity, rows in _by_layer(finding.series()).groupby("quantity", sort=False)
    ]


def _by_layer(series: pd.DataFrame) -> pd.DataFrame:
    """The rows of a claim's series that belong to a layer; none of a series that has other columns."""
    if "reader" in series and "value" in series:
        series = series.assign(name=series["reader"].map(READER_NAMES), estimate=series["value"])
    if not {*COLUMNS} <= {*series.columns}:
        return pd.DataFrame(columns=COLUMNS)
    kept = series[(series["layer"] >= 0) & series["estimate"].notna()]
    # Of what is of one mode, such as "norm, think", the modes are the curves.
    parts = kept["quantity"].str.extract(rf"^(.+), ({'|'.join(MODE_LINES)})$")
    kept = kept.assign(quantity=parts[0].fillna(kept["quantity"]), name=parts[1].fillna(kept["name"]))
    # One point per layer and name, or it is no curve; of one layer there is nothing to see.
    points = kept.groupby(["quantity", "name"])["layer"].transform("nunique")
    rows = kept.groupby(["quantity", "name"])["layer"].transform("size")
    return kept.loc[(points == rows) & (points > 1), COLUMNS]


def _curve(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    rows = rows.sort_values("layer")
    values = {column: [_short(value) for value in rows[column]] for column in ("estimate", "low", "high")}
    return {"name": name, "layers": [int(layer) for layer in rows["layer"]], **values}


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
