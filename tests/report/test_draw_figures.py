"""`normprobe figures`: each figure draws from its declared inputs alone, and the command says what it left out."""

import json
import shutil

import pytest

from normprobe.claims.registry import CLAIMS
from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.report.draw_figures import draw_figures, main
from normprobe.report.figures import FIGURES


def test_every_figure_is_drawn_from_the_tables_of_a_run(whole_run, tmp_path):
    """Its model, its dictionaries and its report are not needed."""
    run = tmp_path / "run"
    for table in (
        path for path in whole_run.rglob("*/*.*") if path.suffix in {".parquet", ".json", ".safetensors"}
    ):
        (run / table.relative_to(whole_run)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(table, run / table.relative_to(whole_run))
    for stem, drawing in FIGURES.items():
        out = tmp_path / "out" / stem
        drawing(run).save(out / stem)
        written = {path.suffix: path for path in out.iterdir()}
        assert set(written) == {".pdf", ".png", ".txt"}
        assert {path.stem for path in written.values()} == {stem}
        assert written[".png"].read_bytes().startswith(b"\x89PNG")
        assert written[".pdf"].read_bytes().startswith(b"%PDF")
        assert len(written[".txt"].read_text(encoding="utf-8").splitlines()) == 1


def test_every_claim_has_a_figure_and_no_two_figures_share_a_number():
    assert {claim.figure for claim in CLAIMS} <= set(FIGURES)
    numbers = [stem.split("_")[1] for stem in FIGURES]
    assert len(set(numbers)) == len(numbers) == 23


def test_skipped_claims_cost_their_figures_and_one_line_each(bare_run, tmp_path, capsys):
    main([str(bare_run), "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(FIGURES)
    not_drawn = {line.split(":")[0] for line in lines if "not drawn" in line}
    assert {"fig_07_critical_steps", "fig_08_suppression"} <= not_drawn
    drawn = {path.stem for path in (tmp_path / "out").glob("*.pdf")}
    assert drawn == FIGURES.keys() - not_drawn


def test_figures_are_drawn_by_name_into_the_run_and_scripts_get_one_document(bare_run, tmp_path, capsys):
    run = shutil.copytree(bare_run, tmp_path / "run")
    main([str(run), "--only", "norm_by_layer", "late_spike", "suppression", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == [str(run)]
    first, second, third = document["figures"]
    assert [row["figure"] for row in document["figures"]] == [
        "fig_01_reasoning_features",
        "fig_02_norm_by_layer",
        "fig_08_suppression",
    ]
    assert (third["pdf"], third["caption"]) == (None, None)
    assert "high_norm_is_causal was skipped" in third["not_drawn"]
    for row in (first, second):
        assert row["not_drawn"] is None
        assert row["caption"] == (run / "figures" / f"{row['figure']}.txt").read_text("utf-8").rstrip("\n")
    named = {row[kind] for row in (first, second) for kind in ("pdf", "png")}
    assert named == {str(path) for path in (run / "figures").iterdir() if path.suffix != ".txt"}


def test_an_unknown_name_is_refused_before_anything_is_drawn(bare_run, tmp_path):
    with pytest.raises(NormprobeError, match=r"expected names of figures or claims, got late_spikes"):
        list(draw_figures([bare_run], tmp_path / "out", ["norm_by_layer", "late_spikes"]))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_and_a_folder_that_cannot_be_are_refused_in_one_line(
    bare_run, tmp_path, capsys
):
    (tmp_path / "file").touch()
    for arguments, message in (
        ([str(tmp_path / "none")], "expected a run directory"),
        ([str(bare_run), "--only", "late_spike", "--out", str(tmp_path / "file" / "x")], "Not a directory"),
    ):
        assert run_main(main, arguments) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert message in line
