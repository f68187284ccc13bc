"""One look for every figure: Okabe–Ito colours, each with a marker and line style of its own for print.

Matplotlib is imported inside the functions: reading a colour must not cost an import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# Okabe & Ito (2008), "Color Universal Design": distinct under the common colour deficiencies.
BLACK, BLUE, GREEN, ORANGE = "#000000", "#0072B2", "#009E73", "#E69F00"
SKY, VERMILION, PURPLE = "#56B4E9", "#D55E00", "#CC79A7"
GREY = "#707070"  # dark enough to be no green in deuteranopia

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
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xaxis.labellocation": "right",  # a label longer than its axis ends with it, and runs out beneath the ticks' names
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.0,
    "pdf.fonttype": 42,  # fonts as TrueType: text in the PDF stays text
    "text.parse_math": False,  # names come from users: $ is a dollar
}
_WIDE_FONTS = (
    *(
        "Noto Sans CJK SC",
        "Noto Sans CJK JP",
        "Noto Sans CJK KR",
        "Noto Sans SC",
        "Noto Sans JP",
        "Source Han Sans SC",
    ),
    *(
        "WenQuanYi Zen Hei",
        "Microsoft YaHei",
        "SimHei",
        "Yu Gothic",
        "Malgun Gothic",
        "PingFang SC",
        "Hiragino Sans",
    ),
    *("Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans"),
)
"""Fonts with the scripts that the figures' own lacks; those that are installed step in for it."""


@cache
def _families() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in _WIDE_FONTS if name in installed))


@cache
def _drawable() -> frozenset[int]:
    """The characters that the fonts of the figures have."""
    from matplotlib import font_manager

    paths = [font_manager.findfont(name) for name in _families()]
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())


def legible(text: str) -> str:
    """The text with each character that no font here has as its code: 代 as \\u4ee3, where it would be an empty box."""
    drawable = _drawable()
    return "".join(
        c if ord(c) in drawable or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def label(text: str) -> str:
    """The text as a label that every legend shows: matplotlib leaves out those that begin with an underscore."""
    return f" {text}" if text.startswith("_") else text


@contextmanager
def look() -> Iterator[None]:
    """The rcParams of the package's figures while the block runs, whatever the caller's are; afterwards these again.

    Draw and save a figure inside the same block: some parameters are read when it is saved.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", _RC, {"font.family": list(_families())}]):
        yield
