"""`report.html`: everything a run found in one self-contained page, the verdicts first.

The page is `templates/report.html.jinja`; what it shows is gathered here, section by section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from normprobe.claims.evidence import VERDICTS, Evidence
from normprobe.claims.registry import BY_NAME
from normprobe.report import (
    dictionary_results,
    feature_pages,
    heatmap,
    method_results,
    signal_comparison,
    token_explorer,
)
from normprobe.report.accuracy_table import accuracy_table
from normprobe.report.audit_results import HEAD, Audit
from normprobe.report.conditions_table import conditions_line, conditions_table, failed
from normprobe.report.csv_link import csv_link
from normprobe.report.findings import Findings, NothingToDraw, quick_note
from normprobe.report.forest import forest, forest_table
from normprobe.report.layer_curves import curve_data
from normprobe.report.render import render
from normprobe.report.table import HOLM, allowed, assumption_table, count, holm_p, margin
from normprobe.report.task_results import TASKS, task_table
from normprobe.report.what_would_change import what_would_change
from normprobe.runs.atomic import atomic_write_text, refusing_disk_errors
from normprobe.runs.directory import Run
from normprobe.runs.tables import Tables
from normprobe.settings import flat
from normprobe.style import MODE_LINES

EXAMPLES = 8
"""Of a feature in the report; its page in features.html has all."""
Section = dict[str, Any]
"""What a section of the page shows; `lacking` instead, in one sentence, where the run has nothing for it."""


def write_report(run_path: Path) -> Path:
    """Write `run_path`/report.html from the run's tables and return its path. Runs no model, fetches nothing.

    Raises NormprobeError (one line) for a run without evidence or with corrupt files.
    """
    run = Run.load(run_path) if run_path.is_dir() else Run(run_path)
    findings, tables, manifest = Findings(run.path), Tables(run.path), run.manifest()
    evidence = [finding.evidence for finding in findings]
    explorer = _or_lacking(lambda: token_explorer.token_data(tables))
    page = render(
        "report.html.jinja",
        claims=BY_NAME,
        HOLM=HOLM,
        results=method_results,
        margin=margin,
        name=_title(str(manifest["identities"].get("model", {}).get("name", run.path.name))),
        forest=forest(list(findings)),
        forest_data=csv_link(forest_table(list(findings)), "forest_plot"),
        explorer=explorer,
        data={"tokens": None if "lacking" in explorer else explorer, "curves": curve_data(findings)},
        skipped=findings.skipped,
        conditions=_conditions(tables),
        quick=quick_note(run.path),
        allowed=allowed(evidence),
        counts={verdict: sum(item.verdict == verdict for item in evidence) for verdict in VERDICTS},
        holm=holm_p(evidence),
        audit=_or_lacking(lambda: _audit(run.path, evidence)),
        changes=[what_would_change(item) for item in evidence],
        signals=_or_lacking(lambda: _signals(run.path)),
        methods=_or_lacking(lambda: _methods(tables)),
        tasks=(*task_table(tables.tasks), TASKS) if tables.has("tasks") else None,
        dictionaries=_or_lacking(lambda: _dictionaries(tables)),
        assumptions=_or_lacking(lambda: assumption_table(findings["assumptions"].series())),
        features=_or_lacking(lambda: _features(tables)),
        tokens=_or_lacking(lambda: heatmap.choose(tables)),
        accuracy=_accuracy(tables),
        facts=_facts(manifest),
    )
    path = run.path / "report.html"
    with refusing_disk_errors(run.path):
        atomic_write_text(path, page)
    return path


def _title(model: str) -> str:
    """A model's name; of a path its last part."""
    return model if model.count("/") < 2 else model.rstrip("/").rpartition("/")[2]


def _or_lacking(section: Callable[[], Any]) -> Any:
    try:
        return section()
    except NothingToDraw as error:
        return {"lacking": str(error)}


def _conditions(tables: Tables) -> Section:
    if not tables.has("conditions"):
        return {"lacking": "This run has no responses."}
    head, rows = conditions_table(tables.conditions)
    shown = {"head": head, "rows": rows, "line": conditions_line(tables.conditions)}
    return shown | {"failed": failed(tables.conditions)}


def _audit(run: Path, evidence: Sequence[Evidence]) -> Section:
    audit = Audit.load(run)
    head, compared = audit.stand_ins(evidence)
    rows, compared = (
        [[BY_NAME[name].title, *others] for name, *others in named] for named in (audit.rows(), compared)
    )
    return {"head": HEAD, "rows": rows, "faults": audit.faults(), "compared_head": head, "compared": compared}


def _signals(run: Path) -> Section:
    compared = signal_comparison.read_signals(run)
    head, rows = signal_comparison.signal_table(compared)
    sentences, drawing = signal_comparison.sentences(compared), signal_comparison.drawing(compared)
    data = csv_link(compared, "compared_signals")
    return {"sentences": sentences, "drawing": drawing, "data": data, "head": head, "rows": rows}


def _methods(tables: Tables) -> Section:
    treatments = method_results.treatment_table(method_results.read(tables, "method_treatments"))
    regimes = method_results.regime_table(tables.sweep, tables.confirmed)
    drawings = [
        (draw(tables), csv_link(method_results.read(tables, name), name))
        for name, draw in method_results.DRAWINGS.items()
    ]
    return {"treatments": treatments, "regimes": regimes, "drawings": drawings}


def _dictionaries(tables: Tables) -> Section:
    fidelity, stability = (dictionary_results.read(tables, name) for name in ("fidelity", "stability"))
    shown = dictionary_results.fidelity_tables(fidelity)
    shown |= {dictionary_results.STABILITY: dictionary_results.stability_table(stability)}
    data = [csv_link(fidelity, "fidelity"), csv_link(stability, "stability")]
    return {"tables": shown, "drawing": dictionary_results.drawing(tables), "data": data}


def _features(tables: Tables) -> Section:
    summary, layers = feature_pages.summary(tables), feature_pages.pages(tables)
    return {"summary": summary, "layers": layers, "n_examples": EXAMPLES}


def _accuracy(tables: Tables) -> Section:
    accuracy = accuracy_table(tables)
    if accuracy.empty:
        return {"lacking": "The problems have no gold answers, so nothing was scored."}
    modes = [mode for mode in MODE_LINES if mode in set(accuracy["mode"])]
    rows = []
    for (_, label), group in accuracy.groupby(["group", "label"], sort=False):
        by_mode = group.set_index("mode").reindex(modes)
        shares = [f"{row.accuracy:.0%} [{row.low:.0%}, {row.high:.0%}]" for row in by_mode.itertuples()]
        rows.append([str(label), *shares, count(int(group["n"].max()))])
    return {"head": ("Problems", *modes, "n"), "rows": rows}


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the run was made: names and values of the manifest, as text."""
    environment = manifest["environment"]
    source = environment["source"] or {"commit": "not recorded (installed package)", "dirty": False}
    state = " with uncommitted changes" if source["dirty"] else ""
    facts = {"seed": manifest["seed"], "written": manifest["written"], "commit": f"{source['commit']}{state}"}
    for kind, identity in manifest["identities"].items():
        facts |= {f"{kind}: {key.replace('_', ' ')}": fact for key, fact in identity.items()}
    facts |= {key.replace("_", " "): fact for key, fact in flat(manifest["arguments"]["resolved"])}
    facts |= {"python": environment["python"]} | environment["packages"]
    facts |= {key.replace("_", " "): fact for key, fact in environment["hardware"].items()}
    return [(name, _plain(fact)) for name, fact in facts.items()]


def _plain(fact: Any) -> str:
    if fact in (None, [], {}):
        return "none"
    if isinstance(fact, dict):
        return ", ".join(
            f"{name}: {_plain(value)}" for name, value in fact.items() if value not in ("", None, {}, [])
        )
    return ", ".join(map(str, fact)) if isinstance(fact, list) else str(fact)
