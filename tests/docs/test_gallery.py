"""`docs/gallery.py`: the page holds each figure of each run, and no figure whose text cannot be read."""

import json
import shutil

import pandas as pd
import pytest

from normprobe.errors import NormprobeError
from normprobe.report.figures import FIGURES
from normprobe.report.signal_comparison import FILE


@pytest.fixture
def run(bare_run, tmp_path):
    """A run that tells how many problems were measured, as those of `normprobe verify` do."""
    run = shutil.copytree(bare_run, tmp_path / "bare")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["arguments"] = {"given": {}, "resolved": {"problems": {"n_measure": 20}}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


@pytest.fixture
def gallery(program, monkeypatch):
    """The program, with three figures alone; the run lacks what the second shows."""
    stems = "fig_02_norm_by_layer", "fig_08_suppression", "fig_12_signal_contest"
    module = program("docs/gallery.py")
    monkeypatch.setattr(module, "FIGURES", {stem: FIGURES[stem] for stem in stems})
    return module


def test_every_figure_of_a_run_is_on_the_page_or_why_it_is_not(gallery, run, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    gallery.write_gallery([run], docs)
    page = (docs / "figures.md").read_text(encoding="utf-8")
    images = {path.stem for path in (docs / "images" / "figures" / "bare").iterdir()}
    assert images == {"fig_02_norm_by_layer", "fig_12_signal_contest"}
    for stem in gallery.FIGURES:
        part = page.partition(f"## {stem}\n")[2].partition("\n## ")[0]
        assert (f"(images/figures/bare/{stem}.png)" in part) == (stem in images)
        assert ("Not drawn for bare:" in part) == (stem not in images)


def test_a_figure_with_text_that_is_cut_off_keeps_the_gallery_as_it_is(gallery, run, tmp_path):
    docs = tmp_path / "docs"
    (docs / "images" / "figures").mkdir(parents=True)
    (docs / "figures.md").write_text("the page before")
    signals = pd.read_parquet(run / FILE)
    signals.assign(target=signals["target"] + " of a very long name" * 5).to_parquet(run / FILE)
    with pytest.raises(
        NormprobeError, match=r"got fig_12_signal_contest of bare: .* is cut off by .* pixels"
    ):
        gallery.write_gallery([run], docs)
    assert (docs / "figures.md").read_text() == "the page before"
    assert list((docs / "images" / "figures").iterdir()) == []
