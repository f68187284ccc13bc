"""What is wrong with the text of a figure: too small to print, cut off at an edge, or on top of other text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

SMALLEST = 5.0
"""Points: the least that a journal prints."""
_TOUCH = 1.0  # pixels by which boxes may meet: those of letters have air around them


def faults(figure: Figure) -> list[str]:
    """A line for each text of the figure that is smaller than `SMALLEST`, leaves the figure or overlaps another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for axes in figure.axes for text in _shown(axes)]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    found = []
    for text, box in zip(texts, boxes, strict=True):
        if float(text.get_fontsize()) < SMALLEST:
            found.append(f"{text.get_text()!r} is of {float(text.get_fontsize()):.1f} points")
        edges = min(box.x0, box.y0, figure.bbox.width - box.x1, figure.bbox.height - box.y1)
        if edges < -_TOUCH:
            found.append(f"{text.get_text()!r} is cut off by {-edges:.0f} pixels")
    for (one, a), (other, b) in combinations(zip(texts, boxes, strict=True), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if min(width, height) > _TOUCH:
            found.append(f"{one.get_text()!r} overlaps {other.get_text()!r}")
    return found


def _shown(axes: Axes) -> Iterator[Text]:
    """The texts of axes that are drawn: ticks outside the view are not."""
    ticks = []
    for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
        low, high = sorted(axis.get_view_interval())
        for tick in chain(axis.get_major_ticks(), axis.get_minor_ticks()):
            ticks += [tick.label1] if low <= tick.get_loc() <= high else []
        ticks += [axis.label, axis.get_offset_text()]
    legend = axes.get_legend()
    own = [child for child in axes.get_children() if isinstance(child, Text)]  # titles among them
    for text in chain(own, ticks, legend.get_texts() if legend else ()):
        if text.get_visible() and text.get_text().strip():
            yield text
