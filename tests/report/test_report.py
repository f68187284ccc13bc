"""The verdict table, the token heat map, the captions and report.html, on a run with planted numbers."""

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.claims.evidence import VERDICTS, Control, Decision, Evidence
from normprobe.claims.measure.readers import NAMES
from normprobe.errors import NormprobeError
from normprobe.report import heatmap, signal_comparison
from normprobe.report.__main__ import main as report
from normprobe.report.accuracy_table import accuracy_table
from normprobe.report.audit_results import Audit
from normprobe.report.findings import Findings, NothingToDraw, read_evidence
from normprobe.report.html import write_report
from normprobe.report.table import (
    HOLM,
    WIDTH,
    holm_p,
    markdown_table,
    number,
    verdict_table,
    with_interval,
)
from normprobe.runs.tables import Tables

EVIDENCE = Evidence(
    claim="thinking_norm_is_higher",
    version=1,
    statement="Norms in think exceed those in no_think.",
    verdict="not supported",
    reason="",
    rule="Supported if the interval lies above 0.02.",
    form="whole",
    estimate=-0.01234,
    unit="log ratio of norms | late layers",
    interval=(-0.0456, 0.0123),
    n=1234,
    n_unit="problems",
    controls=(
        Control("whole", "untrained twin", True, 0.0512, (0.04, 0.06)),
        Control("whole", "early checkpoint", True, float("nan"), (float("nan"), float("nan"))),
        Control(
            "whole",
            "matched features | of the same mean activation as the reasoning features",
            False,
            -0.5,
            (-0.6, -0.4),
        ),
        Control("sinks excluded", "this model", True, 0.9, (0.8, 1.0)),
    ),
    decision=Decision(-0.0635, (-0.07, -0.05), 0.02, "whole", "untrained twin", (), 1.0),
    seed=0,
    note="The untrained twin shows more of it than the model does, so the model's own part cannot be told from depth.",
)


@pytest.fixture
def copy(whole_run, tmp_path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "toy"))


@given(st.floats(-1e300, 1e300) | st.sampled_from([float("nan"), float("inf")]))
def test_numbers_are_short_and_right_to_three_digits(value):
    text = number(value)
    assert len(text) <= 10
    if np.isfinite(value):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=1e-300)


def test_numbers_as_a_reader_expects_them():
    assert [number(x) for x in (0.01234, 1.2, 14234.0, 0.9996, 999.7, 0.0, -0.5, float("nan"))] == [
        "0.0123", "1.20", "14,200", "1.00", "1,000", "0", "-0.500", "–",
    ]  # fmt: skip


def test_an_interval_decides_how_many_decimals_are_shown():
    nan, inf = float("nan"), float("inf")
    assert with_interval(0.000169, (-0.0368, 0.0386)) == "0.000 [-0.037, 0.039]"
    assert with_interval(-0.0001, (-0.4, 0.4)) == "0.00 [-0.40, 0.40]"
    assert with_interval(14234.0, (13000.0, 15000.0)) == "14,234 [13,000, 15,000]"
    assert with_interval(1.0, (1.0, 1.0)) == "1.00 [1.00, 1.00]"
    assert with_interval(0.5, (nan, nan)) == "0.500"
    assert with_interval(nan, (0.1, 0.9)) == "– [0.10, 0.90]"
    assert with_interval(0.5, (0.25, inf)) == "0.500 [0.250, ∞]"


@given(
    st.sampled_from(VERDICTS),
    st.text(st.characters(categories=["L", "N", "P", "Zs"], max_codepoint=0x2FF), max_size=80),
    st.floats(),
)
def test_the_table_never_exceeds_its_width(verdict, text, value):
    item = replace(EVIDENCE, verdict=verdict, unit=text, note=text, estimate=value)
    item = replace(item, controls=(*item.controls, Control("whole", text, True, value, (value, value))))
    assert max(map(len, verdict_table([item]).splitlines())) <= WIDTH


def test_the_table_states_controls_and_margin_in_the_estimates_column():
    table = verdict_table([EVIDENCE, replace(EVIDENCE, claim="late_spike", verdict="supported", controls=())])
    first, second = table.split("late_spike")
    lines = first.splitlines()
    column = lines[0].index("estimate")
    (estimate,) = [line for line in lines if line.startswith("thinking_norm_is_higher")]
    (twin,) = [line for line in lines if line.strip().startswith("untrained twin") and "[" in line]
    (margin,) = [line for line in lines if "(decides)" in line]
    assert "✕ not supported" in estimate
    assert estimate[column:] == "-0.012 [-0.046, 0.012]"
    assert twin[column:] == "0.051 [0.040, 0.060]"
    assert margin[column:] == "-0.064 [-0.070, -0.050]"
    assert "n = 1,234 problems" in first
    assert "early checkpoint" in first
    assert "sinks excluded" not in first
    assert "● supported" in second


def test_p_is_adjusted_by_holm_over_the_claims_judged_by_a_margin():
    """Smallest first: 0.01 × 3, 0.02 × 2, and the last not below the one before; without a margin there is no p."""
    items = [
        replace(EVIDENCE, decision=replace(EVIDENCE.decision, p=p)) for p in (0.02, float("nan"), 0.01, 0.03)
    ]
    expected = ["Holm p 0.040", "", "Holm p 0.030", "Holm p 0.040"]
    assert holm_p(items) == expected
    text = verdict_table(items)
    shown = [
        line.split("(decides)")[1].split("-0.064")[0].strip()
        for line in text.splitlines()
        if "(decides)" in line
    ]
    assert shown == expected
    assert " ".join(text.splitlines()[-2:]) == HOLM
    assert all(p in row for row, p in zip(markdown_table(items).splitlines()[2:], expected, strict=True))


def test_the_readmes_table_is_printed_and_no_report_is_written(copy, capsys):
    report(["--markdown", str(copy)])
    evidence = read_evidence(copy)
    tables = f"{markdown_table(evidence)}\n\n{HOLM}\n\n{Audit.load(copy).markdown(evidence)}\n"
    assert capsys.readouterr().out == tables
    # The twin was judged on one claim; the early checkpoint on none, so it has no column.
    assert "| claim | this model | its untrained twin |\n" in tables
    assert tables.count("✕ not supported 0.100 |") == 1
    shutil.rmtree(copy / "audit")
    report(["--markdown", str(copy)])
    assert capsys.readouterr().out == f"{markdown_table(evidence)}\n\n{HOLM}\n"
    assert not (copy / "report.html").exists()


def test_for_scripts_the_report_is_one_document_and_nothing_is_written(copy, capsys):
    before = sorted(copy.rglob("*"))
    report([str(copy), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["verdicts"] == [item.to_dict() for item in read_evidence(copy)]
    assert document["model"]["name"] == "toy"
    assert document["report"] is None
    assert sorted(copy.rglob("*")) == before
    with pytest.raises(NormprobeError, match="expected one form of output"):
        report([str(copy), "--json", "--markdown"])


def test_scripts_get_the_audit_as_its_table_counts_it(whole_run):
    audit = Audit.load(whole_run)
    found = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert found["faults"] == audit.faults()
    for row in found["nulls"]:
        assert (row["supported"], row["n"]) == audit.alarms(row["claim"], row["trained"])
    assert len(found["nulls"]) == 2 * len(audit.claims)
    assert {row["claim"]: row for row in found["planted"]} == audit.planted
    assert found["subjects"].keys() == audit.subjects.keys()


def test_the_signals_table_and_its_sentences_agree_on_who_tells_most(whole_run):
    compared = signal_comparison.read_signals(whole_run)
    head, rows = signal_comparison.signal_table(compared)
    sentences = signal_comparison.sentences(compared)
    targets = list(head[1:])
    assert [sentence.split(" (")[0].lower() for sentence in sentences] == targets
    assert [row[0][0] for row in rows] == list(NAMES.values())
    for column, (target, sentence) in enumerate(zip(targets, sentences, strict=True), start=1):
        (best,) = [row[0][0] for row in rows if row[column][1]]
        model = compared[(compared["target"] == target) & (compared["reader"] == "this model")]
        strongest = model.loc[model["strength"].idxmax(), "signal"]
        assert NAMES[strongest] == best
        assert f"problems): {best} " in sentence
    # Planted in the norm of computed tokens, and in nothing else.
    assert "computed tokens (20 problems): norm" in sentences[targets.index("computed tokens")].lower()


def test_where_another_signal_tells_most_the_norm_is_given_its_place(whole_run):
    compared = signal_comparison.read_signals(whole_run)
    compared.loc[compared["signal"] == "norm", "strength"] = 0.0
    assert all(
        f"ahead of the norm (0, place {len(NAMES)} of {len(NAMES)}) by " in text
        for text in signal_comparison.sentences(compared)
    )
    alone = signal_comparison.sentences(compared[compared["signal"] == "norm"])
    assert all(text.endswith("no other signal was recorded.") for text in alone)


def test_a_run_without_compared_signals_says_so(copy):
    (copy / signal_comparison.FILE).write_bytes(b"PAR1")
    with pytest.raises(NormprobeError, match="expected a readable table"):
        signal_comparison.read_signals(copy)
    (copy / signal_comparison.FILE).unlink()
    with pytest.raises(NothingToDraw, match="which this run does not have"):
        signal_comparison.read_signals(copy)
    assert "nothing that signals are compared on" in write_report(copy).read_text(encoding="utf-8")


def test_the_markdown_table_has_one_unbroken_row_per_claim():
    lines = markdown_table([EVIDENCE, replace(EVIDENCE, controls=())]).splitlines()
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}


def test_controls_of_other_forms_are_not_the_estimates_own():
    assert [control.name.split()[0] for control in EVIDENCE.own_controls] == ["untrained", "early", "matched"]


def test_evidence_is_read_as_it_was_written(tmp_path):
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "verdicts.json").write_text(json.dumps([EVIDENCE.to_dict()]), encoding="utf-8")
    (read,) = read_evidence(tmp_path)
    assert read.to_dict() == EVIDENCE.to_dict()
    assert np.isnan(read.controls[1].estimate)


def test_the_excerpt_is_the_median_correct_think_response(copy):
    responses = Tables(copy).responses
    lengths = np.random.default_rng(0).permutation(len(responses)) + 3
    responses["token_ids"] = [list(range(length)) for length in lengths]
    responses.to_parquet(copy / "responses" / "responses.parquet")
    excerpt = heatmap.choose(Tables(copy))
    shown = responses[
        (responses["mode"] == "think") & (responses["split"] == "measure") & responses["correct"]
    ]
    by_length = dict(zip(shown["response_id"], shown["token_ids"].map(len), strict=True))
    shorter = sum(length < by_length[excerpt.response_id] for length in by_length.values())
    assert shorter == len(by_length) // 2


def test_the_excerpt_holds_the_tokens_after_the_prompt_with_their_norms_and_roles(whole_run):
    tables = Tables(whole_run)
    excerpt = heatmap.choose(tables)
    tokens = tables.tokens
    rows = tokens.index[(tokens["response_id"] == excerpt.response_id) & (tokens["segment"] != "prompt")]
    assert excerpt.tokens == list(tokens.loc[rows, "token"])
    assert (excerpt.layer, excerpt.n_layers, excerpt.cut) == (6, 8, 0)
    np.testing.assert_allclose(excerpt.norm, tables.signals("model")["norm"][6, rows])
    assert [role or "" for role in excerpt.roles] == list(tokens.loc[rows, "role"].fillna(""))
    assert excerpt.shade.min() == 0.0
    assert excerpt.shade.max() == 1.0


def test_a_run_without_a_complete_thought_has_no_excerpt(copy):
    path = copy / "responses" / "responses.parquet"
    Tables(copy).responses.assign(truncated=True).to_parquet(path)
    with pytest.raises(NothingToDraw, match="expected a complete think response"):
        heatmap.choose(Tables(copy))


@given(st.text())
def test_any_token_can_be_printed_on_one_line(token):
    text = heatmap.readable(token)
    assert text
    assert len(text.splitlines()) == 1


def test_byte_pair_marks_are_not_shown():
    assert [heatmap.readable(t) for t in ("Ġso", "▁so", "Ċ", " ", "深")] == ["so", "so", "↵", "␣", "□"]


def test_accuracy_counts_measured_responses_by_mode_domain_and_difficulty(whole_run):
    table = accuracy_table(Tables(whole_run))
    every = table[table["group"] == "all"].set_index("mode")
    responses = Tables(whole_run).responses.query("split == 'measure' and mode == 'think'")
    assert every.loc["think", "accuracy"] == pytest.approx(responses["correct"].mean())
    for group in ("domain", "difficulty"):
        assert table[(table["group"] == group) & (table["mode"] == "think")]["n"].sum() == len(responses)


class Page(HTMLParser):
    """Tags must nest, and nothing may be fetched."""

    VOID = frozenset({"meta", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_self_contained_page(copy):
    path = write_report(copy)
    assert path == copy / "report.html"
    first = path.read_bytes()
    assert write_report(copy).read_bytes() == first
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert parsed.seen.count("script") == 2  # the data and the page's own, which its policy knows by its hash
    assert "link" not in parsed.seen
    allowed = ("#", "data:image/png;base64,", "data:text/csv;base64,", "data:application/gzip;base64,")
    assert all(link.startswith(allowed) for link in parsed.fetched)
    assert "url(" not in text
    assert "@import" not in text
    anchors = {link[1:] for link in parsed.fetched if link.startswith("#")}
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    judged = list(Findings(copy))
    images = [base64.b64decode(data) for data in re.findall(r'image/png;base64,([^"]+)"', text)]
    assert len(images) == len(judged) + 6  # the signals, the dictionaries; four of the methods
    for image in images:  # the data behind it stand beneath it
        after = text.index(base64.b64encode(image).decode())
        assert "download=" in text[after : text.index("</figcaption>", after)]
    assert all(image.startswith(b"\x89PNG") for image in images)


def test_a_poorer_run_is_reported_with_what_it_lacks_and_its_text_cannot_become_markup(bare_run, tmp_path):
    run = Path(shutil.copytree(bare_run, tmp_path / "bare"))
    _edit(run, note="<script>alert(1)</script> & <b>")
    Tables(run).responses.assign(truncated=True, correct=None).to_parquet(run / "responses/responses.parquet")
    text = write_report(run).read_text(encoding="utf-8")
    assert text.count("<script") == 2
    assert "&lt;script&gt;" in text
    assert text.index("<table") < text.index("<img") < text.index('id="skipped"')
    findings = Findings(run)
    assert {"marks_critical_steps", "high_norm_is_causal"} <= {item["claim"] for item in findings.skipped}
    for finding in findings:
        assert f'id="{finding.evidence.claim}"' in text
    for item in findings.skipped:
        assert item["reason"] in text
    assert "expected a complete think response" in text
    assert "nothing was scored" in text
    assert f"normprobe dictionaries {run}" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "expected a run directory"),
        (lambda run: shutil.rmtree(run / "evidence"), "which this run does not have"),
        (lambda run: (run / "evidence/verdicts.json").write_text('[{"claim": '), "expected a list of claims"),
        (lambda run: (run / "evidence/verdicts.json").write_text('{"claim": 1}'), "expected a list of claims"),
        (lambda run: (run / "evidence/verdicts.json").write_bytes(b"\xff\xfe\x00"), "expected a list of claims"),
        (lambda run: _edit(run, verdict="proved"), "expected a list of claims"),
        (lambda run: _edit(run, claim="norm_is_magic"), "norm_is_magic"),
        (lambda run: (run / "evidence/late_spike.parquet").write_bytes(b"PAR1"), "readable table .*late_spike"),
        (lambda run: (run / "evidence/late_spike.parquet").unlink(), "readable table .*late_spike"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_refused_in_one_line_and_leaves_no_report(copy, damage, message):
    damage(copy)
    with pytest.raises(NormprobeError, match=message) as caught:
        write_report(copy)
    assert "\n" not in str(caught.value)
    assert not list(copy.parent.rglob("report.html*"))


def _edit(run: Path, **fields: str) -> None:
    path = run / "evidence" / "verdicts.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    entries[0] |= fields
    path.write_text(json.dumps(entries), encoding="utf-8")
