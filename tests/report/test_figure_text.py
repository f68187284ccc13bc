"""Every figure prints at the width of a column: no text is small, cut off or on another; and what is wrong is found."""

import pytest
from figure_text import SMALLEST, faults
from matplotlib.figure import Figure

from normprobe.report.figure import WIDTH
from normprobe.report.figures import FIGURES

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
