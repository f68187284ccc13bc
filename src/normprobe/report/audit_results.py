"""The audit's table: how each claim did on null networks, on the planted model, and on samples of the run itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from normprobe.claims.evidence import VERDICTS, Evidence
from normprobe.claims.registry import CLAIMS
from normprobe.errors import refusing_damage
from normprobe.report.findings import NothingToDraw
from normprobe.report.table import markdown, marked, number
from normprobe.runs.directory import Run
from normprobe.runs.untrusted import read_json
from normprobe.stats.verdict import SUPPORTED

FALSE_ALARMS = 0.05
"""Share of null networks on which a claim may be supported. The rule is designed at 2.5 % for a single control."""
COVERED = (0.93, 0.97)
SUBJECTS = {"untrained": "its untrained twin", "early": "its early checkpoint"}
_JUDGED: Mapping[str, Any] = {"claim": str, "verdict": str, "estimate": float | int | None}
_NULL = {**_JUDGED, "trained": bool, "layerwise": float | int | None}
_COVERAGE = {
    "claim": str,
    "constant": bool,
    **dict.fromkeys(("covered", "power_margin", "margin"), float | int),
}
"""What is read of each kind of row."""
HEAD = ("claim", "null networks: supported", "trained dictionaries", "planted model", "intervals cover")
HEAD += ("margin found with 90 % power", "this model's margin")


def is_audited(run: Path) -> bool:
    """Whether `normprobe audit` has finished on this run."""
    return Run(run).is_current("audit") and (run / "audit" / "audit.json").is_file()


@dataclass(frozen=True)
class Audit:
    """What `normprobe audit` left in a run: the findings on null networks, and by claim those on the planted model, on
    samples of the run (coverage) and on the subjects in the model's place."""

    nulls: pd.DataFrame
    planted: dict[str, dict[str, Any]]
    coverage: dict[str, dict[str, Any]]
    subjects: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def load(cls, run: Path) -> Audit:
        """Raises NothingToDraw if the run was not audited, NormprobeError if the file is damaged."""
        path = run / "audit" / "audit.json"
        if not is_audited(run):
            raise NothingToDraw(f"This run was not audited; `normprobe audit {run}` does it.")
        advice = f"delete {path.parent} and audit again"
        with refusing_damage(f"the results of an audit in {path}", advice, ValueError, KeyError, TypeError):
            found = dict(read_json(path))
            subjects = {source: found.get(f"subject-{source}") for source in SUBJECTS}
            nulls = found.get("nulls") or []
            _by_claim(nulls, _NULL)
            return cls(
                pd.DataFrame(nulls, columns=None if nulls else list(_NULL)),
                _by_claim(found["planted"], _JUDGED),
                _by_claim(found["coverage"], _COVERAGE),
                {source: _by_claim(rows, _JUDGED) for source, rows in subjects.items() if rows},
            )

    @property
    def claims(self) -> list[str]:
        """The claims that some part of the audit judged, in the paper's order."""
        known = {*self.planted, *self.coverage, *self.nulls["claim"]}
        return [claim.name for claim in CLAIMS if claim.name in known]

    def alarms(self, claim: str, trained: bool) -> tuple[int, int]:
        """Null networks on which the claim was supported, and null networks on which it was judged."""
        rows = self.nulls[(self.nulls["claim"] == claim) & (self.nulls["trained"] == trained)]
        return int((rows["verdict"] == SUPPORTED).sum()), len(rows)

    def faults(self) -> list[str]:
        """What the audit holds against the claims, in plain words; empty if nothing."""
        faults = []
        for claim in self.claims:
            for trained, kind in ((False, "random"), (True, "trained")):
                false, n = self.alarms(claim, trained)
                if false > FALSE_ALARMS * n:
                    where = f"{false} of {n} null networks with {kind} dictionaries"
                    faults.append(f"{claim}: supported on {where}")
            if (planted := self.planted.get(claim)) and planted["verdict"] != SUPPORTED:
                faults.append(f"{claim}: {planted['verdict']} where its effect was planted")
            found = self.coverage.get(claim)
            if found and not found["constant"] and not COVERED[0] <= found["covered"] <= COVERED[1]:
                faults.append(f"{claim}: 95 % intervals cover in {found['covered']:.1%} of samples")
        return faults

    def rows(self) -> list[list[str]]:
        """A row of plain text per claim, under `HEAD`."""
        rows = []
        for claim in self.claims:
            planted, found = self.planted.get(claim), self.coverage.get(claim)
            rows.append(
                [
                    claim,
                    *(_share(*self.alarms(claim, trained)) for trained in (False, True)),
                    marked(planted["verdict"]) if planted else "–",
                    "–" if not found else "constant" if found["constant"] else f"{found['covered']:.1%}",
                    "–" if not found or found["constant"] else number(found["power_margin"]),
                    number(found["margin"]) if found else "–",
                ]
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON can hold it: `faults`; `nulls`, how many null networks supported a claim and how many
        were judged; `planted` and `coverage`, a row per claim; `subjects`, such rows of each subject in the model's
        place."""
        nulls = [
            dict(
                zip(
                    ("claim", "trained", "supported", "n"),
                    (claim, trained, *self.alarms(claim, trained)),
                    strict=True,
                )
            )
            for claim in self.claims
            for trained in (False, True)
        ]
        rows = {"planted": list(self.planted.values()), "coverage": list(self.coverage.values())}
        subjects = {subject: list(found.values()) for subject, found in self.subjects.items()}
        return {"faults": self.faults(), "nulls": nulls, **rows, "subjects": subjects}

    def text(self) -> str:
        """The table for a terminal, and the faults."""
        table = [list(HEAD), *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
        head, *rows = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)
        return "\n".join([head, "─" * len(head), *rows, "", *(self.faults() or ["no faults found"])])

    def stand_ins(self, model: Sequence[Evidence]) -> tuple[list[str], list[list[str]]]:
        """Head and rows of plain text: every claim's verdict and estimate in the model and in its stand-ins."""
        rows = []
        for item in model:
            others = (_judged(found.get(item.claim)) for found in self.subjects.values())
            rows.append(
                [item.claim, f"{marked(item.verdict, item.allowed)} {number(item.estimate)}", *others]
            )
        return ["claim", "this model", *(SUBJECTS[source] for source in self.subjects)], rows

    def markdown(self, model: Sequence[Evidence]) -> str:
        """The audit's table, and the model next to its stand-ins, for a README."""
        head, rows = self.stand_ins(model)
        return f"{markdown(HEAD, self.rows())}\n\n{markdown(head, rows)}"


def _judged(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not judged"
    return f"{marked(row['verdict'])} {number(float('nan') if row['estimate'] is None else row['estimate'])}"


def _by_claim(rows: list[dict[str, Any]], kinds: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Raises KeyError, TypeError or ValueError for a row that lacks one of the kinds, or has it of another type."""
    for row in rows:
        for name, kind in kinds.items():
            if not isinstance(row[name], kind) or (name == "verdict" and row[name] not in VERDICTS):
                raise ValueError(f"{name} {row[name]!r}")
    return {row["claim"]: row for row in rows}


def _share(count: int, n: int) -> str:
    return f"{count} of {n}" if n else "–"
