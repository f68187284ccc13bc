"""What panels draw alike: curves over layers with intervals, rows with intervals, the sample size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from normprobe import style
from normprobe.claims.evidence import Evidence
from normprobe.claims.measure.measured_tokens import late_layers
from normprobe.claims.measure.readers import READER_NAMES
from normprobe.style import GREY, READER_LINES

CONTROL = {"color": GREY, "linewidth": 1.0}


def pick(series: pd.DataFrame, quantity: str, name: str, along: str = "layer") -> pd.DataFrame:
    """The rows of one curve, in order; empty where a control was not computed."""
    return series[(series["quantity"] == quantity) & (series["name"] == name)].sort_values(along)


def curve(axes: Any, rows: pd.DataFrame, label: str, along: str = "layer", **line: Any) -> None:
    """Estimate over layers with its 95 % interval shaded; nothing where there are no rows."""
    if rows.empty:
        return
    axes.plot(rows[along], rows["estimate"], label=style.label(label), **line)
    axes.fill_between(rows[along], rows["low"], rows["high"], color=line["color"], alpha=0.15, linewidth=0)


def legend_below(axes: Any, columns: int = 2) -> None:
    """A legend that no curve can run into: beneath the axis's name, in the middle of the figure."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    figure = axes.figure
    middle = blended_transform_factory(figure.transFigure, axes.transAxes)
    beneath = ScaledTranslation(0, -0.36, figure.dpi_scale_trans)  # inches, as the names' size is
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=middle + beneath, ncols=columns)


def layer_axis(axes: Any, series: pd.DataFrame, evidence: Evidence, *, mark_late: bool = True) -> None:
    """Name the layer axis, shade the last quarter and state n."""
    layers = sorted(int(layer) for layer in series["layer"].unique() if layer >= 0)
    if mark_late and (late := late_layers(layers, layers[-1] + 1)):
        axes.axvspan(layers[late[0]] - 0.5, layers[-1] + 0.5, color="#EEEEEE", zorder=0, linewidth=0)
    axes.set_xlabel(f"layer (0…{layers[-1]}; 95 % intervals, n = {evidence.n} {evidence.n_unit})")


def logarithmic(axes: Any) -> None:
    """A logarithmic y axis with plain numbers at its ticks."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    for format_ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        format_ticks(LogFormatter(minor_thresholds=(2, 0.5)))


def by_reader(axes: Any, series: pd.DataFrame, labels: Mapping[str, str]) -> None:
    """One labelled row per quantity, from the top: this model's number filled, beneath it its nulls' grey and open.

    Drawn are the rows of the series at layer −1; a quantity without any is left out.
    """
    means = series[(series["layer"] < 0) & series["estimate"].notna()]
    quantities = [quantity for quantity in labels if quantity in set(means["quantity"])]
    heights = dict(zip(quantities, range(len(quantities), 0, -1), strict=True))
    means = means[means["quantity"].isin(quantities)]
    readers = [reader for reader in READER_NAMES if READER_NAMES[reader] in set(means["name"])]
    for place, reader in enumerate(readers):
        shown = means[means["name"] == READER_NAMES[reader]]
        lower = 0.5 * place / max(len(readers) - 1, 1)
        dots(axes, shown, shown["quantity"].map(heights) + 0.25 - lower, reader)
    axes.set_yticks(list(heights.values()), [labels[quantity] for quantity in quantities])
    axes.set_ylim(0.4, len(quantities) + 0.6)
    legend_below(axes)


def dots(axes: Any, rows: pd.DataFrame, heights: pd.Series, reader: str) -> None:
    """Estimates with their intervals at these heights: this model's filled, another reader's grey and open."""
    colour, face = (GREY, "white") if reader != "model" else (READER_LINES[reader]["color"],) * 2
    axes.hlines(heights, rows["low"], rows["high"], color=colour, linewidth=1.0)
    axes.plot(
        rows["estimate"], heights, color=colour, marker=READER_LINES[reader]["marker"], linestyle="none",
        markerfacecolor=face, label=READER_NAMES[reader],
    )  # fmt: skip
