"""One look for every figure: Okabe–Ito colours, each with a marker and line style of its own for print.

Matplotlib is imported inside the functions: reading a colour must not cost an import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Okabe & Ito (2008), "Color Universal Design": distinct under the common colour deficiencies.
BLACK, BLUE, GREEN, ORANGE = "#000000", "#0072B2", "#009E73", "#E69F00"
SKY, VERMILION, PURPLE = "#56B4E9", "#D55E00", "#CC79A7"
GREY = "#7F7F7F"

VERDICT_COLOURS = {"supported": GREEN, "not supported": VERMILION, "inconclusive": ORANGE, "vacuous": GREY}

MODE_LINES: dict[str, dict[str, Any]] = {
    "think": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "no_think": {"color": VERMILION, "marker": "s", "linestyle": "--"},
    "filler": {"color": GREY, "marker": "^", "linestyle": ":"},
}
READER_LINES: dict[str, dict[str, Any]] = {
    "model": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "random": {"color": PURPLE, "marker": "D", "linestyle": "-."},
    "untrained": {"color": ORANGE, "marker": "s", "linestyle": "--"},
    "early": {"color": GREEN, "marker": "^", "linestyle": ":"},
}
"""Keyword arguments of `Axes.plot` for a mode, and for a subject or reader."""

_RC: dict[Any, Any] = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # fonts as TrueType: text in the PDF stays text
}


@contextmanager
def look() -> Iterator[None]:
    """The rcParams of the package's figures while the block runs, whatever the caller's are; afterwards these again.

    Draw and save a figure inside the same block: some parameters are read when it is saved.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", _RC]):
        yield
