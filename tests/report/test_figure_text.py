"""Every figure prints at the width of a column: no text is small, cut off or on another, and what is wrong is found; in
fewer colours it keeps its own."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from normprobe.report.figure import COLOURS, WIDTH, Drawing
from normprobe.report.figure_text import SMALLEST, faults
from normprobe.report.figures import FIGURES
from normprobe.style import BLUE, GREEN, GREY, VERMILION

COLUMN = 3.3
"""Inches: a column of a paper of two."""


@pytest.mark.parametrize("stem", FIGURES)
def test_a_figure_prints_at_the_width_of_a_column(whole_run, stem):
    with FIGURES[stem](whole_run).drawn() as figure:
        assert figure.get_size_inches()[0] == WIDTH == COLUMN
        assert faults(figure) == []


def test_small_cut_and_overlapping_texts_are_found():
    figure = Figure(figsize=(2, 2), dpi=100)
    axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
    axes.set(xticks=[0.0, 1.0], yticks=[])
    assert faults(figure) == []
    axes.text(0.5, 0.5, "small", fontsize=SMALLEST - 1)
    axes.text(0.5, 0.9, "a long text that ends elsewhere")
    axes.set_xticks([0.0, 0.01, 1.0], ["first", "second", "last"])
    found = [
        (wrong in line, line)
        for line, wrong in zip(faults(figure), ("points", "cut", "overlaps"), strict=True)
    ]
    assert all(right for right, _ in found), found


def test_pale_shading_keeps_its_colour_in_the_small_picture():
    """Grey under bands of many colours."""

    def draw(panels):
        panels[0].axvspan(5, 10, color="#EEEEEE", zorder=0, linewidth=0)
        for height, colour in enumerate((BLUE, GREEN, VERMILION, GREY, "#CC79A7", "#E69F00")):
            panels[0].plot(range(11), [3 * height + x % 3 for x in range(11)], "-o", color=colour)
            panels[0].fill_between(
                range(11), 3 * height - 0.4, 3 * height + 0.4, color=colour, alpha=0.15, linewidth=0
            )

    drawing = Drawing("Bands", "Bands.", draw)
    whole, small = (
        Image.open(io.BytesIO(png)).convert("RGB") for png in (drawing.png(), drawing.small_png())
    )
    counts = sorted(whole.getcolors(whole.width * whole.height), reverse=True)
    assert (238, 238, 238) in [colour for _, colour in counts[:8]]
    kept = {colour: count for count, colour in small.getcolors(COLOURS)}
    for count, colour in counts[:4]:
        assert kept.get(colour, 0) >= count, colour


def test_a_colour_that_few_points_have_stays_in_the_small_picture():
    """One blue point among green and red ones, with grey text: as in the figure of the selectors."""

    def draw(panels):
        for height in range(30):
            colour = {0: GREEN, 15: BLUE}.get(height, VERMILION if height % 3 else GREY)
            panels[0].hlines(height, 0.4, 0.6, color=colour, linewidth=1.2)
            panels[0].plot(0.5, height, "o", color=colour)
        panels[0].set_yticks(range(30), [f"selector number {height}" for height in range(30)], fontsize=6)

    drawing = Drawing("Points", "Points.", draw)
    whole, small = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        for png in (drawing.png(), drawing.small_png())
    )
    assert abs(whole - small).max() <= 16
