"""The dictionaries in numbers: every number stands with its control."""

import json

import pytest

from normprobe.report.dictionary_results import document, drawing, fidelity_tables, stability_table, text
from normprobe.report.findings import NothingToDraw
from normprobe.runs.tables import Tables


def test_a_cell_holds_this_models_number_and_its_controls(whole_run):
    tables = fidelity_tables(Tables(whole_run).fidelity)
    assert [caption.split(",")[0] for caption in tables] == ["think", "no_think"]
    for head, rows in tables.values():
        cells = dict(zip(head, rows[3], strict=True))
        assert cells["Layer"] == "3"
        assert cells["R²"] == "0.950 / 0.200 / 0.200"
        assert cells["Loss recovered"] == "0.990 / – / –"
        assert (cells["Loss, spliced"], cells["plain"]) == ("0.200 / 3.00 / 3.00", "0.100")
        assert (cells["mean"], cells["zero"]) == ("8.00", "7.00")


def test_atoms_that_come_back_are_counted_of_all_and_of_those_of_reasoning(whole_run):
    head, rows = stability_table(Tables(whole_run).stability)
    assert dict(zip(head, rows[0], strict=True)) == {
        "Layer": "0",
        "Trained again, all features": "0.700 (50%)",
        "Random, all features": "0.250 (0%)",
        "Trained again, I": "0.900 (100%)",
        "Random, I": "0.250 (0%)",
        "|I|": "1",
    }


def test_scripts_get_fidelity_as_it_is_and_stability_by_layer_partner_and_kind(whole_run):
    tables = Tables(whole_run)
    found = json.loads(json.dumps(document(tables), allow_nan=False))
    assert [row["r2"] for row in found["fidelity"]] == list(tables.fidelity["r2"])
    assert sum(row["n"] for row in found["stability"]) == len(tables.stability)
    (own,) = [
        row
        for row in found["stability"]
        if row["layer"] == 0 and row["selected"] and row["compared_with"] != "random"
    ]
    assert (own["n"], own["mean"], own["shared"]) == (1, pytest.approx(0.9), 1.0)


def test_the_terminal_and_the_figure_show_every_reader(whole_run, bare_run):
    tables = Tables(whole_run)
    assert text(tables).count("0.950 / 0.200 / 0.200") == 16
    with drawing(tables).drawn() as figure:
        recovered = figure.axes[1]
        assert len(figure.axes[0].lines) == 6
        assert recovered.get_ylabel() == "loss recovered"
        assert all(len(line.get_xdata()) for line in recovered.lines if "this model" in str(line.get_label()))
    with pytest.raises(NothingToDraw, match="normprobe dictionaries"):
        text(Tables(bare_run))
