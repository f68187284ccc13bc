"""`report.html`: everything a run found in one self-contained page, the verdicts first."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from normprobe.claims.evidence import VERDICTS, Control, Evidence
from normprobe.claims.registry import BY_NAME
from normprobe.report import heatmap, signals
from normprobe.report.accuracy import accuracy_table
from normprobe.report.assumptions import assumption_table
from normprobe.report.audit_section import ANCHOR, audit_section
from normprobe.report.figure import canvas, drawn, row_canvas
from normprobe.report.findings import Finding, Findings, NothingToDraw
from normprobe.report.methods_section import ANCHOR as METHODS
from normprobe.report.methods_section import methods_section
from normprobe.report.page import badge, heading, image, page, paragraph, table
from normprobe.report.table import HOLM, count, holm_p, margin, with_interval
from normprobe.report.what_would_change import (
    MARGINS,
    binding,
    draw_margins,
    margins_height,
    what_would_change,
)
from normprobe.runs.directory import Run
from normprobe.runs.files import atomic_write_text, refusing_disk_errors
from normprobe.runs.tables import Tables
from normprobe.style import MODE_COLOURS

MEANING = {
    "supported": "the interval of the effect over its strongest control lies above the smallest effect of interest",
    "not supported": "that interval lies below it",
    "inconclusive": "that interval contains it, or a control could not be computed",
    "vacuous": "what was tested would hold whatever the data",
}

FURTHER = {
    ANCHOR: "the verdicts, audited",
    "what-would-change": "what would change these verdicts",
    "signals": "which signal tells most",
    METHODS: "the methods in numbers",
    "assumption-table": "the assumptions in numbers",
    "tokens": "one response token by token",
    "accuracy": "how often the model is right",
    "skipped": "claims not judged",
    "manifest": "how this was made",
}


def write_report(run_path: Path) -> Path:
    """Write `run_path`/report.html from the run's tables and return its path. Runs no model, fetches nothing.

    Raises NormprobeError (one line) for a run without evidence or with corrupt files.
    """
    run = Run.load(run_path) if run_path.is_dir() else Run(run_path)
    findings = Findings(run.path)
    tables = Tables(run.path)
    manifest = run.manifest()
    name = manifest["identities"].get("model", {}).get("name", run.path.name)
    body = (
        *_opening(str(name), findings),
        *(part for finding in findings.judged for part in _claim(finding)),
        *audit_section(run.path, [finding.evidence for finding in findings.judged]),
        *_changes([finding.evidence for finding in findings.judged]),
        *_signals(run.path),
        *methods_section(tables),
        *_assumptions(findings),
        *_heat_map(tables),
        *_accuracy(tables),
        *_skipped(findings),
        *_manifest(manifest),
    )
    path = run.path / "report.html"
    with refusing_disk_errors(run.path):
        atomic_write_text(path, page(f"normprobe: {name}", body))
    return path


def _opening(name: str, findings: Findings) -> Iterator[str]:
    yield f"<h1>Does the norm tell when {escape(name)} reasons?</h1>"
    yield paragraph(
        "Claims of “The Tell-Tale Norm” (arXiv 2606.06188), each put to a test that could fail. The rule of each "
        "verdict was written before the data were seen.",
        "soft",
    )
    yield '<ul class="key">'
    for verdict in VERDICTS:
        n = sum(finding.evidence.verdict == verdict for finding in findings.judged)
        yield f"<li>{badge(verdict)} {n}</li>"
    yield f"<li>skipped {len(findings.skipped)}</li></ul>"
    head = ("Claim", "Verdict", "Estimate", "Estimate − strongest control", "n")
    evidence = [finding.evidence for finding in findings.judged]
    yield table(
        head,
        map(_verdict_row, evidence, holm_p(evidence)),
        f"Brackets are 95 % intervals over problems. {HOLM}",
        cards=True,
        notes=map(_note, evidence),
    )
    yield '<dl class="soft">'
    for verdict, meaning in MEANING.items():
        yield f"<dt>{badge(verdict)}</dt><dd>{escape(meaning)}</dd>"
    yield "</dl>"
    links = (f'<a href="#{anchor}">{text}</a>' for anchor, text in FURTHER.items())
    yield f"<p>After the claims: {', '.join(links)}.</p>"


def _verdict_row(evidence: Evidence, p: str) -> list[str]:
    return [
        f'<b><a href="#{escape(evidence.claim)}">{escape(BY_NAME[evidence.claim].title)}</a></b>',
        badge(evidence.verdict),
        f'{_value(evidence)}<br><span class="soft">{escape(evidence.unit)}</span>',
        f'<span class="number">{margin(evidence.decision)}</span><br><span class="soft">{p}</span>',
        f'<span class="number">{count(evidence.n)} {escape(evidence.n_unit)}</span>',
    ]


def _note(evidence: Evidence) -> str:
    """The note in plain words, and beneath it the controls of the estimate."""
    beside = " · ".join(f"{escape(control.label)} {_value(control)}" for control in evidence.own_controls)
    return f'{escape(evidence.note)}<br><span class="soft">Controls: {beside or "none"}</span>'


def _claim(finding: Finding) -> Iterator[str]:
    evidence = finding.evidence
    yield heading(BY_NAME[evidence.claim].title, evidence.claim)
    yield paragraph(evidence.statement)
    yield f'<p class="rule"><span class="soft">Rule, written beforehand:</span> {escape(evidence.rule)}</p>'
    yield (
        f"<p>{badge(evidence.verdict)}: {_value(evidence)} ({escape(evidence.unit)}), "
        f"n = {count(evidence.n)} {escape(evidence.n_unit)}</p>"
    )
    yield image(
        drawn(canvas(), lambda axes: finding.draw(axes[0])),
        BY_NAME[evidence.claim].title,
        finding.claim.caption,
    )
    yield _controls(evidence)


def _controls(evidence: Evidence) -> str:
    """Every row of the evidence, the estimate and the deciding one in bold."""
    rows = [["<b>the estimate</b>", f"<b>{_value(evidence)}</b>"]]
    rows += [[escape(_in_form(control)), _value(control)] for control in evidence.controls]
    rows.append(["<b>estimate − strongest control (decides)</b>", f"<b>{margin(evidence.decision)}</b>"])
    return table(("Measured", "[95 % interval]"), rows, f"The estimate ({evidence.unit}) and its controls")


def _in_form(control: Control) -> str:
    return f"{control.form}: {control.label}" if control.form else control.label


def _changes(evidence: list[Evidence]) -> Iterator[str]:
    yield heading("What would change these verdicts?", "what-would-change")
    yield paragraph(
        "A verdict rests on one margin: the estimate less its strongest control, in the form in which that is least. "
        "It is supported where the margin's interval lies above the smallest effect of interest, not supported where "
        "it lies below."
    )
    if evidence:
        blank = canvas(height=margins_height(evidence))
        yield image(drawn(blank, lambda axes: draw_margins(axes[0], evidence)), "Margins", MARGINS)
    rows = [
        [
            f'<b><a href="#{escape(item.claim)}">{escape(BY_NAME[item.claim].title)}</a></b>',
            badge(item.verdict),
            f'<span class="number">{margin(item.decision)}</span>',
            f"{item.decision.smallest_effect:g}",
            escape(binding(item.decision)) or "–",
        ]
        for item in evidence
    ]
    yield table(
        ("Claim", "Verdict", "Margin [95 % interval]", "Smallest effect", "Strongest control"),
        rows,
        cards=True,
        notes=(escape(what_would_change(item)) for item in evidence),
    )


def _signals(run: Path) -> Iterator[str]:
    yield heading("Which signal tells most?", "signals")
    try:
        compared = signals.read_signals(run)
    except NothingToDraw as error:
        yield paragraph(str(error))
        return
    yield f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in signals.told(compared))}</ul>"
    panels = compared["target"].nunique()
    yield image(
        drawn(row_canvas(panels), lambda axes: signals.draw_signals(axes, compared)),
        "Signals",
        signals.CAPTION,
    )
    head, rows = signals.signal_table(compared)
    cells = [[name, *(_number(text, best) for text, best in numbers)] for (name, _), *numbers in rows]
    yield table(
        head, cells, "This model [95 % intervals over problems]; the strongest signal of a column in bold"
    )


def _assumptions(findings: Findings) -> Iterator[str]:
    yield heading("The theorem's assumptions in numbers", "assumption-table")
    try:
        head, rows = assumption_table(findings["assumptions"].series())
    except NothingToDraw as error:
        yield paragraph(str(error))
        return
    yield table(
        head,
        [[escape(cell) for cell in row] for row in rows],
        "Lowest to highest over layers (layers in which it holds / all)",
        cards=True,
    )


def _heat_map(tables: Tables) -> Iterator[str]:
    yield heading("One response, token by token", "tokens")
    try:
        passage = heatmap.choose(tables)
    except NothingToDraw as error:
        yield paragraph(str(error))
        return
    yield heatmap.as_html(passage)
    yield paragraph(heatmap.caption(passage), "soft")


def _accuracy(tables: Tables) -> Iterator[str]:
    yield heading("How often the model is right", "accuracy")
    accuracy = accuracy_table(tables)
    if accuracy.empty:
        yield paragraph("The problems have no gold answers, so nothing was scored.")
        return
    modes = [mode for mode in MODE_COLOURS if mode in set(accuracy["mode"])]
    rows = []
    for (_, label), cells in accuracy.groupby(["group", "label"], sort=False):
        by_mode = cells.set_index("mode").reindex(modes)
        shares = [f"{row.accuracy:.0%} [{row.low:.0%}, {row.high:.0%}]" for row in by_mode.itertuples()]
        rows.append([escape(str(label)), *shares, count(int(cells["n"].max()))])
    head = ("Problems", *modes, "n")
    yield table(head, rows, "Correct answers to measurement problems [95 % Wilson interval], n = problems")


def _skipped(findings: Findings) -> Iterator[str]:
    yield heading("Claims not judged", "skipped")
    if not findings.skipped:
        yield paragraph("None: every claim was judged.")
        return
    rows = [
        [escape(BY_NAME[item.claim].title), escape(item.statement), escape(item.reason)]
        for item in findings.skipped
    ]
    yield table(("Claim", "It says", "Why it was skipped"), rows, cards=True)


def _manifest(manifest: dict[str, Any]) -> Iterator[str]:
    yield heading("How this was made", "manifest")
    environment = manifest["environment"]
    source = environment["source"] or {"commit": "not recorded (installed package)", "dirty": False}
    state = " with uncommitted changes" if source["dirty"] else ""
    facts = {"seed": manifest["seed"], "written": manifest["written"], "commit": f"{source['commit']}{state}"}
    for kind, identity in manifest["identities"].items():
        facts |= {f"{kind}: {key.replace('_', ' ')}": value for key, value in identity.items()}
    facts |= {key.replace("_", " "): value for key, value in manifest["arguments"]["resolved"].items()}
    facts |= {"python": environment["python"]} | environment["packages"]
    facts |= {key.replace("_", " "): value for key, value in environment["hardware"].items()}
    yield table(("", ""), [[escape(key), escape(_plain(value))] for key, value in facts.items()])


def _plain(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _value(measured: Evidence | Control) -> str:
    return _number(with_interval(measured.estimate, measured.interval))


def _number(text: str, strong: bool = False) -> str:
    """A number with its interval on one line."""
    number = f'<span class="number">{text}</span>'
    return f"<b>{number}</b>" if strong else number
