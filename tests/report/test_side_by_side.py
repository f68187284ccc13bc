"""`normprobe figures RUN RUN`: a run's panel is that of its own figure, and the table has its numbers."""

import shutil

import numpy as np
import pandas as pd
import pytest

from normprobe.console import run_main
from normprobe.report.correlation_table import BEST, OVER_LAYERS, STRENGTH, correlations
from normprobe.report.correlation_table import side_by_side as table_of
from normprobe.report.draw_figures import TABLE, main
from normprobe.report.figure import WIDTH
from normprobe.report.figure_text import faults
from normprobe.report.figures import FIGURES
from normprobe.report.findings import Findings, NothingToDraw
from normprobe.report.side_by_side import drawing


@pytest.fixture(scope="module")
def runs(whole_run, bare_run):
    return {"whole": whole_run, "bare": bare_run}


@pytest.mark.parametrize("stem", ["fig_01_reasoning_features", "fig_02_norm_by_layer", "fig_03_signals"])
def test_each_run_has_the_panels_of_its_own_figure(runs, stem):
    with drawing(stem, runs).drawn() as figure:
        assert figure.get_size_inches()[0] == WIDTH
        assert faults(figure) == []
        compared = [axes for axes in figure.axes if axes.get_title() in runs]
        legends = [bool(axes.get_legend()) for axes in compared]
        for name, run in runs.items():
            with FIGURES[stem](run).drawn() as own:
                panels = [axes for axes in compared if axes.get_title() == name]
                for ours, theirs in zip(panels, own.axes, strict=True):
                    pairs = zip(ours.lines, theirs.lines, strict=True)
                    assert all(np.array_equal(a.get_xydata(), b.get_xydata()) for a, b in pairs)
    assert legends == [False, True] * (len(legends) // 2)


@pytest.mark.parametrize("stem", ["fig_05_assumptions", "fig_08_suppression", "fig_10_hard_tokens"])
def test_the_text_of_a_run_beneath_itself_can_be_read(whole_run, stem):
    with drawing(
        stem, {"one": whole_run, "a model with a name of more than forty letters": whole_run}
    ).drawn() as figure:
        assert faults(figure) == []


def test_the_caption_says_what_is_shown_once_and_every_runs_number(runs):
    caption = drawing("fig_03_signals", runs).caption
    for letters, claim in (("ab", "norm_tracks_features"), ("cd", "entropies_do_not")):
        for letter, (name, run) in zip(letters, runs.items(), strict=True):
            finding = Findings(run)[claim]
            assert f"({letter}) {name}: {finding.judged}" in caption
            assert caption.count(finding.claim.caption) == 1


def test_a_run_that_lacks_what_is_shown_is_named(runs, whole_run, bare_run):
    three = {**runs, "again": whole_run}
    with drawing("fig_08_suppression", three).drawn() as figure:
        assert {axes.get_title() for axes in figure.axes} == {"whole", "again"}
    assert (
        "Not drawn for bare: high_norm_is_causal was skipped" in drawing("fig_08_suppression", three).caption
    )
    with pytest.raises(
        NothingToDraw, match=r"fewer than two of the runs .*\(bare: high_norm_is_causal was skipped"
    ):
        drawing("fig_08_suppression", runs)
    with pytest.raises(NothingToDraw, match=r"it shows one run; normprobe figures RUN --only fig_13_margins"):
        drawing("fig_13_margins", runs)


def test_the_table_holds_the_series_numbers_and_the_best_entropy(runs):
    table = correlations(runs)
    assert list(dict.fromkeys(table["run"])) == ["whole", "bare"]
    head, lines = table_of(table)
    cells = {(statistic, name): values for statistic, name, *values in lines}
    assert head[2:] == ["whole", "bare"]
    for place, run in enumerate(runs.values()):
        series = Findings(run)["entropies_do_not"].series()
        own = series[(series["layer"] < 0) & (series["name"] == "this model")].set_index("quantity")[
            "estimate"
        ]
        rho = own[own.index.str.match(r"layer-wise, .*entropy")]
        assert cells[OVER_LAYERS, BEST][place].startswith(f"{rho.max():.1f}"[:3])
        strength = own[[name for name in own.index if "entropy" in name and "layer-wise" not in name]]
        found = table[(table["statistic"] == STRENGTH) & (table["run"] == head[2 + place])]
        found = found[(found["reader"] == "this model") & found["signal"].isin(strength.index)]
        assert found["rho"].max() == strength.max()
        assert cells["n", "problems"][place] == str(Findings(run)["entropies_do_not"].evidence.n)


def test_the_command_writes_figures_and_table_next_to_the_runs(runs, tmp_path, capsys):
    copies = [shutil.copytree(run, tmp_path / name) for name, run in runs.items()]
    main([*map(str, copies), "--only", "norm_tracks_features", "margins"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'compared' / 'fig_03_signals.png'} and .pdf, .txt")
    assert second.startswith("fig_13_margins: not drawn, it shows one run")
    written = {path.name for path in (tmp_path / "compared").iterdir()}
    assert written == {f"fig_03_signals.{kind}" for kind in ("pdf", "png", "txt")} | {
        f"{TABLE}.csv",
        f"{TABLE}.md",
    }
    assert len(pd.read_csv(tmp_path / "compared" / f"{TABLE}.csv")) == len(correlations(runs))
    assert run_main(main, [str(copies[0]), str(copies[0])]) == 2
    assert "expected runs of different names" in capsys.readouterr().err
