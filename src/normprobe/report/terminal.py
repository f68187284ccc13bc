"""What a command prints of a run: its conditions, its verdicts, and the claims that it did not judge."""

from __future__ import annotations

import textwrap
from pathlib import Path

from normprobe.report.conditions_table import conditions_text
from normprobe.report.findings import Findings, quick_note
from normprobe.report.table import WIDTH, verdict_table
from normprobe.runs.tables import Tables


def terminal_text(run: Path) -> str:
    """The text, at most `WIDTH` columns. Raises NormprobeError as `Findings`."""
    findings, tables = Findings(run), Tables(run)
    parts = [conditions_text(tables.conditions)] if tables.has("conditions") else []
    if note := quick_note(run):
        parts.append(note)
    if evidence := [finding.evidence for finding in findings]:
        parts.append(verdict_table(evidence))
    skipped = (
        textwrap.fill(
            f"{item['claim']}: {item['reason']}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
        for item in findings.skipped
    )
    if findings.skipped:
        parts.append("\n".join(["Not judged:", *skipped]))
    return "\n\n".join(parts)
