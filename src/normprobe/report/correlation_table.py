"""The paper's table of Spearman correlations over models (arXiv 2606.06188): the norm and the best entropy with the
reasoning features, each statistic with its controls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd

from normprobe.claims.measure.feature_correlation import PLAIN
from normprobe.claims.measure.readers import ENTROPIES, MODEL, NAMES, NORM, RANDOM, TWIN
from normprobe.claims.norm_tracks_features import LAYERWISE
from normprobe.report.findings import Findings, NothingToDraw
from normprobe.report.table import Cells, count, with_interval

OVER_LAYERS, WITHIN, STRENGTH = "ρ over layers", "ρ within a layer", "|ρ| within a layer"
COLUMNS = ["run", "statistic", "signal", "reader", "rho", "low", "high", "n"]
_FORMS = {LAYERWISE: OVER_LAYERS, PLAIN: WITHIN}
BEST = "best entropy"
LINES = {
    "norm": (NORM, MODEL),
    BEST: (BEST, MODEL),
    f"norm, {TWIN}": (NORM, TWIN),
    f"norm, {RANDOM}": (NORM, RANDOM),
}
"""Signal and reader of each line that the table has for a statistic."""


def correlations(runs: Mapping[str, Path]) -> pd.DataFrame:
    """A row per run that has them, statistic, signal and reader: the correlation of the signal with the reasoning
    features, its 95 % interval (`low`, `high`) over `n` problems.

    `OVER_LAYERS`: of the gaps between think and no_think, the paper's form; `WITHIN`, `STRENGTH`: over a problem's
    tokens, mean over problems and layers. Columns: `COLUMNS`. Raises NormprobeError as `Findings`.
    """
    rows = []
    for name, run in runs.items():
        with suppress(NothingToDraw):
            rows += [(name, *row) for row in _rows(Findings(run))]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(findings: Findings) -> Iterator[tuple[object, ...]]:
    for claim in ("norm_tracks_features", "entropies_do_not"):
        finding = findings[claim]
        series = finding.series()
        for row in series[series["layer"] < 0].to_dict("records"):
            quantity = row["quantity"]
            signal = quantity.removeprefix("layer-wise, ")
            if quantity in _FORMS:
                statistic, signal = _FORMS[quantity], NORM
            elif signal in ENTROPIES and signal != quantity:
                statistic = OVER_LAYERS
            elif quantity in NAMES:
                statistic = STRENGTH
            else:
                continue
            yield statistic, signal, row["name"], row["estimate"], row["low"], row["high"], finding.evidence.n


def side_by_side(table: pd.DataFrame) -> Cells:
    """Statistics and signals down, runs across; of the entropies the one of largest ρ, named."""
    runs = list(dict.fromkeys(table["run"]))
    lines = [
        [statistic, name, *(_cell(table, run, statistic, *line) for run in runs)]
        for statistic in (OVER_LAYERS, STRENGTH)
        for name, line in LINES.items()
    ]
    n = table.groupby("run")["n"].max()
    return ["", "", *runs], [*lines, ["n", "problems", *(count(int(n[run])) for run in runs)]]


def _cell(table: pd.DataFrame, run: str, statistic: str, signal: str, reader: str) -> str:
    signals = ENTROPIES if signal == BEST else (signal,)
    rows = table[(table["run"] == run) & (table["statistic"] == statistic) & (table["reader"] == reader)]
    rows = rows[rows["signal"].isin(signals) & rows["rho"].notna()].sort_values("rho")
    if rows.empty:
        return "–"
    row = rows.iloc[-1]
    shown = with_interval(row["rho"], (row["low"], row["high"]))
    return f"{shown} ({NAMES[row['signal']]})" if signal == BEST else shown
