"""A run in Python: verdicts as a table, tables and figures by name, and what a notebook shows."""

import json
import shutil
from pathlib import Path

import pytest

import normprobe
from normprobe.errors import NormprobeError
from normprobe.report.figures import FIGURES, stem_of
from normprobe.report.findings import NothingToDraw, read_evidence


def test_verdicts_are_the_evidence_row_by_row(whole_run):
    run = normprobe.load_run(whole_run)
    for row, item in zip(run.verdicts.to_dict("records"), read_evidence(whole_run), strict=True):
        assert (row["claim"], row["verdict"], row["n"]) == (item.claim, item.verdict, item.n)
        numbers = [row[name] for name in ("estimate", "low", "high", "margin", "margin_low", "margin_high")]
        expected = [item.estimate, *item.interval, item.decision.margin, *item.decision.interval]
        assert numbers == pytest.approx(expected, nan_ok=True)
    assert len(run.tokens) == run.signals("model")["norm"].shape[1]


def test_figures_are_drawn_by_the_names_of_their_files_their_subjects_and_their_claims(whole_run, bare_run):
    names = ("norm_by_layer", "fig_02_norm_by_layer", "thinking_norm_is_higher")
    assert {stem_of(name) for name in names} == {"fig_02_norm_by_layer"}
    assert {stem_of(stem) for stem in FIGURES} == set(FIGURES)
    drawing = normprobe.load_run(whole_run).plot("norm_by_layer")
    assert drawing._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(NormprobeError, match="expected names of figures or claims, got norm_by_lier"):
        normprobe.load_run(whole_run).plot("norm_by_lier")
    with pytest.raises(NothingToDraw):
        normprobe.load_run(bare_run).plot("suppression")


def test_a_notebook_shows_the_verdicts_or_what_is_missing_and_no_text_becomes_markup(whole_run, tmp_path):
    copy = Path(shutil.copytree(whole_run, tmp_path / "<b>run"))
    file = copy / "evidence" / "verdicts.json"
    entries = json.loads(file.read_text())
    entries[0]["unit"] = "<script>alert(1)</script>"
    file.write_text(json.dumps(entries))
    shown = normprobe.load_run(copy)._repr_html_()
    assert all(entry["claim"] in shown for entry in entries)
    assert "<script>" not in shown
    assert "<b>" not in shown
    shutil.rmtree(copy / "evidence")
    assert "expected " in normprobe.load_run(copy)._repr_html_()
    assert "<b>" not in normprobe.load_run(copy)._repr_html_()
