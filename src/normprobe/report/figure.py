"""How a figure is made: a canvas in the house style, panels on it, files and a caption beside each other."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from normprobe import style
from normprobe.console import run_main
from normprobe.runs.files import atomic_write_text, refusing_disk_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.2, 3.2
"""Inches: a panel with its labels at the size of the text around it."""


def canvas(*, panels: int = 1, width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` axes beneath each other, lettered where there are several; `height` inches each."""
    style.apply()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * panels))
    axes = list(figure.subplots(panels, squeeze=False)[:, 0])
    if panels > 1:
        for letter, panel in zip("abcdef", axes, strict=False):
            panel.set_title(letter, loc="left", weight="bold")
    return figure, axes


def row_canvas(
    panels: int, *, width: float = 1.3 * WIDTH, height: float = HEIGHT
) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` axes side by side, for rows that share their names; `width` inches together."""
    style.apply()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def drawn(blank: tuple[Figure, list[Axes]], draw: Callable[[list[Axes]], None]) -> bytes:
    """A figure as PNG, its axes filled by `draw`."""
    figure, axes = blank
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()


def publish(figure: Figure, stem: Path, caption: str) -> None:
    """Write `stem`.pdf, `stem`.png and the caption as `stem`.txt. Raises NormprobeError if they cannot be written."""
    style.save(figure, stem)
    with refusing_disk_errors(stem.parent):
        atomic_write_text(stem.with_name(f"{stem.name}.txt"), f"{caption}\n")


def command(draw: Callable[[Path, Path], None], description: str | None) -> NoReturn:
    """The command line of one figure, `--run runs/x [--out DIR]`: bad input prints one line and exits 2."""

    def main(argv: list[str] | None) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--run", type=Path, required=True, help="a run directory, runs/x")
        parser.add_argument("--out", type=Path, help="where the files go (default: figures/ inside the run)")
        given = parser.parse_args(argv)
        draw(given.run, given.out or given.run / "figures")

    raise SystemExit(run_main(main))
