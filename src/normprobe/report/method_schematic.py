"""The three methods in one picture: where each looks at the norm, and what it does."""

from __future__ import annotations

from typing import Any

import numpy as np

from normprobe.layer_profile import IQR_FACTOR
from normprobe.report.figure import Drawing
from normprobe.runs.tables import Tables
from normprobe.style import BLUE, GREEN, GREY, VERMILION

CAPTION = (
    "The three methods, on a drawn stream of norms (illustration: no data). Dashed: τ = Q3 + {k:g}·IQR of the layer, "
    "adapted to each request; in this model at layers {layers}. ALRR runs a layer once more on its own output where "
    "the norm lies between τ and 1.5 τ, and keeps the result if the norm grew by a fifth. ERSS keeps the states above "
    "τ and mixes the one most alike into a later peak (the paper's text) or after a streak of low norms (its code). "
    "LRS sums the norms of the last third of each sampled response, and takes the response with the largest sum."
)
HEIGHTS = np.array([1.0, 1.3, 0.9, 2.4, 1.2, 1.0, 1.5, 2.6, 1.1, 0.8, 1.3, 1.0])
TAU = 2.0


def drawing(tables: Tables) -> Drawing:
    """The three panels; of a run's layer profile the caption names the chosen layers."""
    chosen = tables.profile["chosen_layers"]
    layers = str(chosen[0]) if len(chosen) == 1 else f"{chosen[0]}–{chosen[-1]}"
    caption = CAPTION.format(k=IQR_FACTOR, layers=layers)
    return Drawing("Methods", caption, draw, panels=3, height=1.5)


def draw(panels: list[Any]) -> None:
    """One panel per method."""
    alrr, erss, lrs = panels
    for axes, title in ((alrr, "ALRR: recursion"), (erss, "ERSS: steering"), (lrs, "LRS: selection")):
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_xlabel("token")
    alrr.set_ylabel("norm at a chosen layer")
    _stream(alrr)
    for peak in (3, 7):
        alrr.bar(peak, 0.5, bottom=HEIGHTS[peak], color=VERMILION, alpha=0.5)
        _arrow(alrr, (float(peak), HEIGHTS[peak]), (float(peak), HEIGHTS[peak] + 0.5), -1.4)
    alrr.text(5, 3.3, "the layer once more", color=VERMILION, fontsize=7, ha="center")
    _stream(erss)
    _arrow(erss, (3.0, 2.5), (7.0, 2.7), -0.25)
    erss.text(2.6, 3.4, "an earlier peak, mixed in", color=VERMILION, fontsize=7)
    erss.bar(7, HEIGHTS[7], color=VERMILION)
    for row, (scale, colour) in enumerate(((0.30, GREY), (0.34, GREEN), (0.27, GREY))):
        base = 2.4 - 1.15 * row
        heights = scale * np.roll(HEIGHTS, row)
        lrs.bar(range(12), heights, bottom=base, color=[GREY] * 8 + [colour] * 4, alpha=0.9, width=0.8)
        lrs.text(12.1, base + 0.25, "Σ, the largest" if colour == GREEN else "Σ", color=colour, fontsize=7)
    lrs.axvspan(7.5, 11.5, color=GREEN, alpha=0.12, linewidth=0)
    lrs.text(9.5, 3.5, "last third", color=GREEN, fontsize=7, ha="center")
    lrs.set_xlim(-0.8, 17)
    for axes in (alrr, erss, lrs):
        axes.set_ylim(0, 3.8)


def _stream(axes: Any) -> None:
    axes.bar(range(12), HEIGHTS, color=[BLUE if height > TAU else GREY for height in HEIGHTS])
    axes.axhline(TAU, color="black", linestyle="--", linewidth=0.8)
    axes.text(11.6, TAU + 0.08, "τ", ha="right")


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], bend: float) -> None:
    style = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "color": VERMILION, "linewidth": 1.2}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
