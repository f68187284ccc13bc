"""Which signal tells most? The comparison of all signals as sentences, a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from normprobe.claims.measure.drawing import dots, legend_below
from normprobe.claims.measure.readers import MODEL, NAMES, NORM, READER_NAMES
from normprobe.claims.measure.signal_comparison import NAME
from normprobe.report.figure import Drawing
from normprobe.report.findings import NothingToDraw
from normprobe.report.table import count, number, with_interval
from normprobe.runs.atomic import read_table
from normprobe.style import GREY

FILE = f"evidence/{NAME}.parquet"

CAPTION = (
    "What each signal tells within a layer, mean over the last quarter of layers; 0 tells nothing, the sign is the "
    "direction. Reasoning features: rank correlation with their summed activation over a problem's tokens. Computed "
    "tokens: against other thought tokens of the same problem. Correct answer: the signal's mean over the thought, of "
    "right against wrong responses in think; matched: only problems of the same domain and difficulty are compared. "
    "Filled: this model. Open: the untrained twin reading the same tokens. Lines: 95 % intervals."
)


def read_signals(run: Path) -> pd.DataFrame:
    """The rows of `compare_signals`. Raises NothingToDraw for a run without them, NormprobeError for a corrupt file."""
    path = run / FILE
    if not path.is_file():
        raise NothingToDraw(
            f"expected {FILE}, which this run does not have: it recorded nothing that signals are compared on"
        )
    return read_table(path)


def signal_table(signals: pd.DataFrame) -> tuple[tuple[str, ...], list[list[tuple[str, bool]]]]:
    """Head, and a row of cells per signal: this model's number, and whether it is the strongest of its column."""
    columns = _ranked(signals)
    rows = []
    for signal in (name for name in NAMES if any(name in column for column in columns.values())):
        cells = [(NAMES[signal], False)]
        for column in columns.values():
            at = column.get(signal)
            text = with_interval(at["estimate"], (at["low"], at["high"])) if at else "–"
            cells.append((text, signal == next(iter(column))))
        rows.append(cells)
    return ("Signal", *columns), rows


def _ranked(signals: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """This model's rows by target and signal, the strongest signal first."""
    model = signals[signals["reader"] == MODEL].sort_values("strength", ascending=False, kind="stable")
    return {
        target: {row["signal"]: row for row in model[model["target"] == target].to_dict("records")}
        for target in dict.fromkeys(signals["target"])
    }


def sentences(signals: pd.DataFrame) -> list[str]:
    """A sentence per target: which signal tells most, and where the norm stands."""
    return [_sentence(target, column) for target, column in _ranked(signals).items()]


def _sentence(target: str, column: dict[str, dict[str, Any]]) -> str:
    order = list(column)
    first, norm = column[order[0]], column[NORM]
    begin = f"{target[:1].upper()}{target[1:]} ({first['n']} problems): {NAMES[order[0]]} {number(first['strength'])}"
    if order[0] != NORM:
        lead = with_interval(first["over_norm"], (first["over_norm_low"], first["over_norm_high"]))
        place = f"place {order.index(NORM) + 1} of {len(order)}"
        return f"{begin}, ahead of the norm ({number(norm['strength'])}, {place}) by {lead}."
    if len(order) == 1:
        return f"{begin}; no other signal was recorded."
    second = column[order[1]]
    lead = with_interval(-second["over_norm"], (-second["over_norm_high"], -second["over_norm_low"]))
    return f"{begin}, ahead of the next ({NAMES[order[1]]}, {number(second['strength'])}) by {lead}."


def draw_signals(panels: Sequence[Any], signals: pd.DataFrame) -> None:
    """A panel per target, a row per signal: this model filled, the untrained twin open and grey."""
    names = [signal for signal in NAMES if signal in set(signals["signal"])]
    heights = {name: len(names) - place for place, name in enumerate(names)}
    for axes, (target, rows) in zip(panels, signals.groupby("target", sort=False), strict=True):
        axes.axvline(0.0, color=GREY, linewidth=0.6)
        for reader, offset in (("model", 0.12), ("untrained", -0.2)):
            shown = rows[rows["reader"] == READER_NAMES[reader]]
            dots(axes, shown, shown["signal"].map(heights) + offset, reader)
        widest = float(rows[["estimate", "low", "high"]].abs().max().max())
        axes.set_xlim(-1.08 * widest, 1.08 * widest)
        axes.set_title(str(target).removesuffix(" problems"))
        axes.set_xlabel(f"{rows['unit'].iloc[0]} (n = {count(int(rows['n'].iloc[0]))} problems)")
        axes.set_ylim(0.4, len(names) + 0.6)
        axes.set_yticks(list(heights.values()), [NAMES[name] for name in names])
    legend_below(panels[-1])


def drawing(signals: pd.DataFrame) -> Drawing:
    """The figure of `draw_signals`."""
    panels = signals["target"].nunique()
    numbers = dict.fromkeys(
        count(int(rows["n"].iloc[0])) for _, rows in signals.groupby("target", sort=False)
    )
    caption = f"{CAPTION} n = {' or '.join(numbers)} problems, as beneath each panel."
    return Drawing("Signals", caption, lambda axes: draw_signals(axes, signals), panels, height=1.6)
