"""The look: told apart without colour, and the same figure gives the same bytes."""

from pathlib import Path

import pandas as pd
import pytest

from normprobe import style
from normprobe.errors import NormprobeError
from normprobe.report.figure import save


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("lines", [style.MODE_LINES, style.READER_LINES])
def test_curves_differ_in_colour_marker_and_line(lines):
    for key in ("color", "marker", "linestyle"):
        assert len({line[key] for line in lines.values()}) == len(lines), key


def test_every_colour_shows_on_white_paper():
    lines = [*style.MODE_LINES.values(), *style.READER_LINES.values()]
    colours = [*(line["color"] for line in lines), *style.VERDICT_COLOURS.values()]
    assert max(map(luminance, colours)) < 0.7


def draw(stem: Path) -> tuple[bytes, bytes]:
    from matplotlib.figure import Figure

    with style.look():
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], **style.MODE_LINES["think"], label="ρ")
        axes.legend()
        written = save(figure, stem)
    return written[0].read_bytes(), written[1].read_bytes()


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first, second = draw(tmp_path / "a" / "fig.1"), draw(tmp_path / "b" / "fig.1")
    assert first == second
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["fig.1.pdf", "fig.1.png"]
    assert first[0].startswith(b"%PDF")
    assert first[1].startswith(b"\x89PNG")


def test_the_callers_parameters_neither_change_nor_enter_a_figure(tmp_path):
    import matplotlib

    plain = draw(tmp_path / "plain")
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 20.0}):
        before, backend = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
        assert draw(tmp_path / "own") == plain
        assert dict(matplotlib.rcParams) == before
        assert matplotlib.get_backend(auto_select=False) == backend


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NormprobeError, match="choose a writable directory") as caught:
        draw(tmp_path / "file" / "fig")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["$100 & up", "$a$", "_hidden", "<b>", "代数", "\\frac", "🙂", "Ω"])
def test_every_name_is_drawn_as_itself(name):
    from normprobe.claims.measure.drawing import curve, legend_below
    from normprobe.report.figure import Drawing

    def draw_curve(axes):
        rows = pd.DataFrame({"layer": [0, 1], "estimate": [0, 1], "low": [0, 1], "high": [0, 1]})
        curve(axes[0], rows, name, color="black")
        legend_below(axes[0], columns=1)

    drawing = Drawing("title", "caption", draw_curve)
    assert drawing.png().startswith(b"\x89PNG"), "no warning of a missing glyph, no error of mathtext"
    with drawing.drawn() as figure:
        (shown,) = figure.axes[0].get_legend().get_texts()
    assert shown.get_text().strip() == style.legible(name)
    assert (
        style.legible(name)
        .encode()
        .decode("unicode_escape" if "\\u" in style.legible(name).lower() else "utf-8")
        == name
    )
