"""What panels draw alike: curves over layers with intervals, rows with intervals, the sample size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.evidence import Evidence
from normprobe.claims.measured import late_layers
from normprobe.style import GREY

CONTROL = {"color": GREY, "linewidth": 1.0}


def pick(series: pd.DataFrame, quantity: str, arm: str) -> pd.DataFrame:
    """The rows of one curve, by layer; empty where a control was not computed."""
    return series[(series["quantity"] == quantity) & (series["arm"] == arm)].sort_values("layer")


def curve(axes: Any, rows: pd.DataFrame, label: str, **line: Any) -> None:
    """Estimate over layers with its 95 % interval shaded; nothing where there are no rows."""
    if rows.empty:
        return
    axes.plot(rows["layer"], rows["estimate"], label=label, **line)
    axes.fill_between(rows["layer"], rows["low"], rows["high"], color=line["color"], alpha=0.15, linewidth=0)


def legend_below(axes: Any, columns: int) -> None:
    """A legend that no curve can run into."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns)


def layer_axis(axes: Any, series: pd.DataFrame, evidence: Evidence, *, mark_late: bool = True) -> None:
    """Name the layer axis, shade the last quarter and state n."""
    layers = sorted(int(layer) for layer in series["layer"].unique() if layer >= 0)
    if mark_late and (late := late_layers(layers, layers[-1] + 1)):
        axes.axvspan(layers[late[0]] - 0.5, layers[-1] + 0.5, color="#EEEEEE", zorder=0, linewidth=0)
    axes.set_xlabel(f"layer (0…{layers[-1]}; 95 % intervals, n = {evidence.n} {evidence.n_unit})")


def forest(axes: Any, rows: Sequence[tuple[str, pd.DataFrame, dict[str, Any]]], evidence: Evidence) -> None:
    """Estimates with their intervals, one named row each from the top; a row without data is left out."""
    shown = [(name, frame.iloc[0], style) for name, frame, style in rows if frame["estimate"].notna().any()]
    for height, (_, at, style) in zip(range(len(shown), 0, -1), shown, strict=True):
        axes.plot([at["low"], at["high"]], [height, height], color=style["color"], linestyle="-")
        axes.plot(
            at["estimate"], height, color=style["color"], marker=style.get("marker", "o"), linestyle="none"
        )
    axes.set_yticks(np.arange(len(shown), 0, -1), [name for name, _, _ in shown])
    axes.set_ylim(0.4, len(shown) + 0.6)
    axes.text(
        1.0,
        1.01,
        f"n = {evidence.n} {evidence.n_unit}",
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=7,
    )
