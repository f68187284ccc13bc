"""A drawing: what a figure shows and how large it is, for the report (PNG) and for the paper (files with a caption)."""

from __future__ import annotations

import io
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from normprobe import style
from normprobe.labels import in_words
from normprobe.runs.atomic import atomic_write, atomic_write_text, make_directory, refusing_disk_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.3, 2.6
"""Inches: a panel as wide as a column in print, its labels nearly as large as the text around it."""
LETTERS = string.ascii_lowercase
"""Of the panels, from the top."""
COLOURS = 128
"""Of a figure in a page: its lines and its anti-aliased text need no more, and the file is a third as large."""
AREAS = 8
"""Of these, those that the most pixels have."""


@dataclass(frozen=True)
class Drawing:
    """A figure before it is drawn.

    title: its alternative text; caption: what it shows, on one line; draw: fills the axes, one for each of `panels`;
    height: of a panel in inches. Panels stand beneath each other and are lettered.
    """

    title: str
    caption: str
    draw: Callable[[list[Axes]], None]
    panels: int = 1
    height: float = HEIGHT

    @contextmanager
    def drawn(self) -> Iterator[Figure]:
        """The drawn figure, inside the package's look: save it before the block ends."""
        from matplotlib.figure import Figure

        with style.look():
            figure = Figure(figsize=(WIDTH, self.height * self.panels))
            axes = list(figure.subplots(self.panels, squeeze=False).flat)
            if self.panels > 1:
                for letter, panel in zip(LETTERS, axes, strict=False):
                    # At the height of a title, which may be long or the drawing's own: left of the panel.
                    panel.annotate(
                        letter,
                        (0, 1),
                        (-4, 6),
                        xycoords="axes fraction",
                        textcoords="offset points",
                        ha="right",
                        weight="bold",
                        fontsize="large",
                    )
            self.draw(axes)
            _put_in_words(figure)
            yield figure

    def png(self) -> bytes:
        """The figure as a PNG file."""
        buffer = io.BytesIO()
        with self.drawn() as figure:
            figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
        return buffer.getvalue()

    def small_png(self) -> bytes:
        """The same in `COLOURS` colours, for a page."""
        import numpy as np
        from PIL import Image

        small, whole = io.BytesIO(), Image.open(io.BytesIO(self.png())).convert("RGB")
        # The default merges colours that few pixels have: a blue point among many others would turn green. What covers
        # the colours best leaves out pale ones near others, which large areas have: shading would turn beige.
        pixels = np.asarray(whole)
        colours, place, counts = np.unique(
            pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
        )
        areas = colours[np.argsort(-counts, kind="stable")[:AREAS]]
        points = whole.quantize(COLOURS - AREAS, Image.Quantize.MAXCOVERAGE).getpalette()
        palette = np.vstack([areas, np.array(points).reshape(-1, 3)[: COLOURS - AREAS]])
        # Pillow's own search for the nearest colour is not exact: white would not stay white.
        distance = np.square(colours[:, None].astype(int) - palette).sum(axis=2)
        nearest = distance.argmin(axis=1).astype(np.uint8)[place].reshape(pixels.shape[:2])
        reduced = Image.fromarray(nearest)
        reduced.putpalette(palette.astype(np.uint8).tobytes())
        reduced.save(small, "PNG", optimize=True)
        return small.getvalue()

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.png()

    def save(self, stem: Path) -> None:
        """Write `stem`.pdf, `stem`.png and the caption as `stem`.txt. Raises NormprobeError if that is impossible."""
        with self.drawn() as figure:
            save(figure, stem)
        with refusing_disk_errors(stem.parent):
            atomic_write_text(stem.with_name(f"{stem.name}.txt"), f"{self.caption}\n")


def _put_in_words(figure: Figure) -> None:
    """Labels in plain words, and every text in characters that the fonts have. What a panel writes into its axes may be
    a model's own text, whose words are left alone."""
    from matplotlib.text import Text

    written = {text for axes in figure.axes for text in axes.texts}
    for text in figure.findobj(Text):
        words = text.get_text() if text in written else in_words(text.get_text())
        text.set_text(style.legible(words))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        # A tick takes its text from its axis whenever it is drawn.
        names = [label.get_text() for label in axis.get_ticklabels()]
        if (words := [style.legible(in_words(name)) for name in names]) != names:
            axis.set_ticks(axis.get_ticklocs(), words)


def save(figure: Figure, stem: Path) -> tuple[Path, ...]:
    """Write `stem`.pdf and `stem`.png (200 dpi) and return the paths; the same figure gives the same bytes.

    Raises NormprobeError when the files cannot be written; no half-written file keeps its final name.
    """
    # A date or a version in the file would make every redrawing a change.
    formats = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    paths = {extension: stem.with_name(f"{stem.name}.{extension}") for extension in formats}
    with refusing_disk_errors(stem.parent):
        make_directory(stem.parent)
        for extension, metadata in formats.items():
            with atomic_write(paths[extension]) as unfinished:
                figure.savefig(unfinished, format=extension, dpi=200, metadata=metadata)
    return tuple(paths.values())
