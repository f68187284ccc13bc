"""What the report is made of: the forest plot's places, its sentences, the token explorer's values, data as CSV."""

import base64
import gzip
import io
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.claims.evidence import Control, Decision
from normprobe.config import QUICK, Study
from normprobe.report import token_explorer
from normprobe.report.csv_link import LARGEST, csv_link
from normprobe.report.findings import Finding, Findings, NothingToDraw, quick_note
from normprobe.report.forest import forest
from normprobe.report.html import write_report
from normprobe.report.layer_curves import curve_data
from normprobe.report.plain_sentence import plain_sentence
from normprobe.report.terminal import terminal_text
from normprobe.runs.directory import Run
from normprobe.runs.tables import Tables
from normprobe.study_file import changed

NAN = float("nan")


@pytest.fixture(scope="module")
def finding(whole_run) -> Finding:
    return Findings(whole_run)["thinking_norm_is_higher"]


def judged(
    finding: Finding, verdict: str, margin: float, interval: tuple[float, float], **more: str
) -> Finding:
    decision = Decision(
        margin, interval, 0.05, "whole responses", more.pop("strongest", "untrained twin"), (), 0.5
    )
    control = Control("whole responses", "untrained twin", True, 0.2, (0.1, 0.3))
    evidence = replace(
        finding.evidence,
        verdict=verdict,
        decision=decision,
        controls=(control,),
        form="whole responses",
        **more,
    )
    return replace(finding, evidence=evidence)


def test_a_question_keeps_its_lines_and_a_gold_answer_names_no_task():
    assert token_explorer.cell_text("List.\r\n\nNow\x00\n") == "List.\n\nNow□"
    assert token_explorer.cell_text('{"task": 3, "seed": 1, "index": 2, "answer": "104"}') == "104"
    assert token_explorer.cell_text('{"task": 3}') == '{"task": 3}'


def test_a_run_of_the_sizes_of_quick_says_that_they_are_too_small(whole_run, tmp_path):
    run = shutil.copytree(whole_run, tmp_path / "run")
    note = "This run has the sizes of --quick, which are too small for verdicts."
    for study, expected in ((Study(), ""), (changed(Study(), QUICK), note)):
        Run.open(run, asdict(study), stages=Run(run).manifest()["stages"])
        assert quick_note(run) == expected
        assert (note in terminal_text(run)) == bool(expected)
        assert (note in write_report(run).read_text(encoding="utf-8")) == bool(expected)


@given(
    st.lists(
        st.tuples(*[st.floats(-50, 50) | st.just(NAN)] * 3), min_size=1, max_size=5
    )
)  # fmt: skip
def test_places_of_the_forest_plot_keep_the_order_of_the_margins(finding, margins):
    plot = forest([judged(finding, "not supported", margin, ends) for margin, *ends in map(tuple, margins)
                   for ends in [tuple(sorted(ends))]])  # fmt: skip
    known = [
        (margin, row.margin)
        for (margin, *_), row in zip(margins, plot.rows, strict=True)
        if row.margin is not None
    ]
    assert len(known) == sum(not math.isnan(margin) for margin, *_ in margins)
    places = [place for _, place in sorted(known)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    assert plot.control < plot.smallest
    for margin, place in known:
        if abs(margin - 0.05) > 1e-3:
            assert (place > plot.smallest) == (margin > 0.05)


def test_a_sentence_names_the_number_its_strongest_control_and_what_was_asked(finding):
    def sentence(*args, **more) -> str:
        found = judged(finding, *args, **more)
        return plain_sentence(found.claim, found.evidence)

    what = "The logarithm of how many times higher the norm is in thinking is"
    rival = "its strongest control (untrained twin: 0.20)"
    assert sentence("supported", 0.3, (0.1, 0.5)) == f"{what} 0.50, above {rival} by 0.30; asked was 0.05."
    assert (
        sentence("not supported", -0.3, (-0.5, -0.1))
        == f"{what} -0.10, below {rival}; asked was 0.05 above it."
    )
    assert sentence("not supported", 0.03, (0.02, 0.04)).endswith("by 0.030 only; asked was 0.05.")
    assert "too uncertain to tell" in sentence("inconclusive", 0.03, (-0.2, 0.2))
    assert "without an interval" in sentence("inconclusive", 0.03, (NAN, NAN))
    assert sentence("inconclusive", 0.3, (0.1, 0.5), reason="No.") == "It cannot be judged: No."
    assert (
        sentence("vacuous", 0.3, (0.1, 0.5), reason="All of it.") == "The test says nothing here: All of it."
    )
    assert "the same as no effect (0.0)" in sentence("not supported", 0.0, (-0.5, 0.5), strongest="no effect")


def test_every_claim_has_its_words(whole_run):
    for found in Findings(whole_run):
        assert found.claim.measured
        assert plain_sentence(found.claim, found.evidence).endswith(".")


def test_the_explorer_holds_every_value_to_three_digits(whole_run):
    tables = Tables(whole_run)
    data = token_explorer.token_data(tables)
    norm = tables.signals("model")["norm"]
    by_key = {signal["key"]: signal for signal in data["signals"]}
    assert {"norm", "surprisal", "z_reasoning", "attention_entropy"} <= by_key.keys()
    tokens = tables.tokens
    assert len({problem["id"] for problem in data["problems"]}) == len(data["problems"]) == 20
    for problem in data["problems"]:
        assert [response["mode"] for response in problem["responses"]] == ["think", "no_think", "filler"]
        for response in problem["responses"]:
            own = (tokens["response_id"] == f"{problem['id']}/{response['mode']}/0") & (
                tokens["segment"] != "prompt"
            )
            rows = tokens.index[own]
            steps = np.frombuffer(base64.b64decode(response["values"]["norm"]), "<u2").reshape(len(norm), -1)
            low, high = (np.array(by_key["norm"][end])[:, None] for end in ("low", "high"))
            read = low + steps / (token_explorer.MISSING - 1) * (high - low)
            np.testing.assert_allclose(read, norm[:, rows], rtol=1e-3)
            assert response["tokens"] == list(tokens.loc[rows, "token"])
            roles = [data["roles"][place] if place >= 0 else None for place in response["roles"]]
            assert roles == [None if pd.isna(role) else role for role in tokens.loc[rows, "role"]]


def test_the_explorer_keeps_to_its_size_and_marks_what_was_not_measured(whole_run, monkeypatch):
    tables = Tables(whole_run)
    tables.signals("model")["output_entropy"][2] = np.nan
    monkeypatch.setattr(token_explorer, "MOST_BYTES", 20_000)
    monkeypatch.setattr(token_explorer, "MOST_TOKENS", 5)
    data = token_explorer.token_data(tables)
    responses = [response for problem in data["problems"] for response in problem["responses"]]
    assert 1 < len(data["problems"]) < 20
    assert sum(len(values) for response in responses for values in response["values"].values()) <= 20_000
    assert max(len(response["tokens"]) for response in responses) == 5
    assert responses[0]["cut"] > 0
    steps = np.frombuffer(base64.b64decode(responses[0]["values"]["output_entropy"]), "<u2").reshape(8, 5)
    assert (steps[2] == token_explorer.MISSING).all()
    assert (np.delete(steps, 2, axis=0) < token_explorer.MISSING).all()


def test_without_a_right_answer_the_explorer_still_shows_what_was_written(whole_run, tmp_path):
    run = Path(shutil.copytree(whole_run, tmp_path / "toy"))
    Tables(run).responses.assign(correct=False).to_parquet(run / "responses/responses.parquet")
    assert len(token_explorer.token_data(Tables(run))["problems"]) == 20
    Tables(run).tokens.assign(split="select").to_parquet(run / "traces/tokens.parquet")
    with pytest.raises(NothingToDraw, match="traced no response"):
        token_explorer.token_data(Tables(run))


def test_curves_are_the_claims_series_by_layer(whole_run):
    curves = {
        (curve["claim"], curve["quantity"]): curve["curves"] for curve in curve_data(Findings(whole_run))
    }
    norm = curves["thinking_norm_is_higher", "norm"]
    assert [curve["name"] for curve in norm] == ["think", "no_think", "filler"]
    series = pd.read_parquet(whole_run / "evidence/thinking_norm_is_higher.parquet")
    expected = series[series["quantity"] == "norm, filler"].sort_values("layer")
    assert norm[2]["layers"] == list(expected["layer"])
    np.testing.assert_allclose(norm[2]["estimate"], expected["estimate"], rtol=1e-3)
    assert {name for (claim, _), shown in curves.items() if claim == "assumptions" for name in
            (curve["name"] for curve in shown)} >= {"this model", "random dictionary"}  # fmt: skip
    assert not [claim for claim, _ in curves if claim == "two_sided_bound"]


def test_a_large_table_is_compressed_and_the_same_each_time():
    small = pd.DataFrame({"name": ['a, "b"\n', "c"], "value": [1 / 3, NAN]})
    large = pd.DataFrame({"value": np.arange(LARGEST) + 0.5})
    link = csv_link(small, "small")
    assert link["download"] == "small.csv"
    head, content = link["href"].split(",")
    assert head == "data:text/csv;base64"
    read = pd.read_csv(io.BytesIO(base64.b64decode(content)))
    pd.testing.assert_frame_equal(read, small, rtol=1e-5)
    link = csv_link(large, "large")
    assert link == csv_link(large, "large")
    assert link["download"] == "large.csv.gz"
    pd.testing.assert_frame_equal(
        pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(link["href"].split(",")[1])))),
        large,
        rtol=1e-5,
    )
