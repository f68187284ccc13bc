"""One look for every figure: Okabe–Ito colours, each with a marker and line style of its own for print.

Matplotlib is imported inside the functions: reading a colour must not cost an import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normprobe.errors import NormprobeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color Universal Design": distinct under the common colour deficiencies.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#7F7F7F"

MODE_COLOURS: dict[str, str] = {"think": BLUE, "no_think": VERMILION, "filler": GREY}
READER_COLOURS: dict[str, str] = {"model": BLUE, "random": PURPLE, "untrained": ORANGE, "early": GREEN}
VERDICT_COLOURS: dict[str, str] = {
    "supported": GREEN,
    "not supported": VERMILION,
    "inconclusive": ORANGE,
    "vacuous": GREY,
}

_MODE_LINES = {"think": ("o", "-"), "no_think": ("s", "--"), "filler": ("^", ":")}
_READER_LINES = {"model": ("o", "-"), "random": ("D", "-."), "untrained": ("s", "--"), "early": ("^", ":")}

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


def mode_line(mode: str) -> dict[str, Any]:
    """Keyword arguments of `Axes.plot` (colour, marker, line style) for a mode: think, no_think or filler."""
    marker, line = _MODE_LINES[mode]
    return {"color": MODE_COLOURS[mode], "marker": marker, "linestyle": line}


def reader_line(subject: str) -> dict[str, Any]:
    """Keyword arguments of `Axes.plot` for a subject or reader: model, random, untrained or early."""
    marker, line = _READER_LINES[subject]
    return {"color": READER_COLOURS[subject], "marker": marker, "linestyle": line}


@contextmanager
def look() -> Iterator[None]:
    """The rcParams of the package's figures while the block runs, whatever the caller's are; afterwards these again.

    Draw and save a figure inside the same block: some parameters are read when it is saved.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", _RC]):
        yield


def save(figure: Figure, stem: Path) -> tuple[Path, ...]:
    """Write `stem`.pdf and `stem`.png (200 dpi) and return the paths; the same figure gives the same bytes.

    Raises NormprobeError when the files cannot be written; no half-written file keeps its final name.
    """
    # A date or a version in the file would make every redrawing a change.
    formats = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    paths = tuple(stem.with_name(f"{stem.name}.{extension}") for extension in formats)
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for path, (extension, metadata) in zip(paths, formats.items(), strict=True):
            unfinished = path.with_name(f"{path.name}.tmp")
            figure.savefig(unfinished, format=extension, dpi=200, metadata=metadata)
            unfinished.replace(path)
    except OSError as error:
        raise NormprobeError(
            f"expected to write {stem}, got: {error.strerror}; choose a writable directory with free space"
        ) from error
    return paths
