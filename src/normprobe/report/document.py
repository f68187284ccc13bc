"""What a run found, as one JSON document: what `--json` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from normprobe.report.findings import Findings
from normprobe.runs.directory import Run
from normprobe.runs.tables import Tables


def run_document(run: Path) -> dict[str, Any]:
    """Names and values that JSON can hold: `run`, `model` (its identity), `report` (its path, None if there is none),
    `conditions` (a row per mode), `verdicts` (as in evidence/verdicts.json) and `not_judged` (claim and reason).

    Raises NormprobeError as `Findings`.
    """
    findings, tables, report = Findings(run), Tables(run), run / "report.html"
    return {
        "run": str(run),
        "model": Run.load(run).manifest()["identities"].get("model"),
        "report": str(report) if report.exists() else None,
        "conditions": records(tables.conditions) if tables.has("conditions") else [],
        "verdicts": [finding.evidence.to_dict() for finding in findings],
        "not_judged": findings.skipped,
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON can hold them: what is missing, NaN or infinite is None."""
    return json.loads(table.to_json(orient="records", double_precision=15))
