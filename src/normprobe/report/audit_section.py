"""The audit in the report: would these verdicts fail where they should, and succeed where an effect is there?"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from normprobe.claims.evidence import Evidence
from normprobe.claims.registry import BY_NAME
from normprobe.report.audit import HEAD, Audit, is_audited
from normprobe.report.page import heading, paragraph, table

ANCHOR = "audit"
EXPLAINED = (
    "Null networks have random weights and read what the model wrote: a claim supported there is a false alarm. Into "
    "the planted models (one for eight claims, one for the two on learning) the effects were put by construction: each "
    "claim should be supported. Intervals are "
    "checked on samples of this run's own problems, and should cover in 95 %. The last two columns say how large a "
    "margin this run would have found with 90 % power, and how large it is. The suppression experiment, in which a "
    "network has to write, is drawn at random for null and planted networks."
)


def audit_section(run: Path, evidence: list[Evidence]) -> Iterator[str]:
    """The audit's table, its faults in words, and the model beside its controls; one sentence without an audit."""
    yield heading("The verdicts, audited", ANCHOR)
    if not is_audited(run):
        yield paragraph(f"This run was not audited; `normprobe audit {run.name}` does it.")
        return
    audit = Audit.load(run)
    yield paragraph(EXPLAINED)
    rows = [[escape(BY_NAME[name].title), *map(escape, cells)] for name, *cells in audit.rows()]
    yield table(HEAD, rows, cards=True)
    faults = audit.faults()
    yield paragraph("What the audit holds against the claims:" if faults else "The audit found no fault.")
    if faults:
        yield "<ul>" + "".join(f"<li>{escape(fault)}</li>" for fault in faults) + "</ul>"
    head, beside = audit.beside(evidence)
    if len(head) > 2:
        yield paragraph("Each claim with another network in the model's place, reading what the model wrote:")
        yield table(
            head, [[escape(BY_NAME[name].title), *map(escape, cells)] for name, *cells in beside], cards=True
        )
