"""A run's findings: evidence and the series behind it, as the report, the figures and the comparisons read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from normprobe.claims.claim import Claim
from normprobe.claims.evidence import Evidence
from normprobe.claims.registry import BY_NAME
from normprobe.config import QUICK
from normprobe.errors import NormprobeError, refusing_damage
from normprobe.report.figure import HEIGHT, LETTERS, Drawing
from normprobe.report.table import count, unit, value
from normprobe.runs.atomic import read_table
from normprobe.runs.directory import Run, resuming
from normprobe.runs.untrusted import read_json

_Entry = TypeVar("_Entry")


class NothingToDraw(NormprobeError):
    """The run lacks what a figure shows; the message says why. Not a fault: a figure of many is left out."""


@dataclass(frozen=True)
class Finding:
    """A claim with its evidence in one run, and the file that its panel is drawn from."""

    claim: Claim
    evidence: Evidence
    series_file: Path

    def series(self) -> pd.DataFrame:
        """The tidy series of the claim. Raises NormprobeError when its file is missing or corrupt."""
        return read_table(self.series_file)

    @property
    def drawing(self) -> Drawing:
        """The figure of the claim alone."""
        return drawing_of([self])

    @property
    def judged(self) -> str:
        """The number and how it was judged, in a sentence."""
        item = self.evidence
        return (
            f"Estimate: {value(item)} (95 % interval; {unit(item)}), "
            f"n = {count(item.n)} {item.n_unit}; verdict: {item.verdict}{' †' if item.allowed else ''}."
        )

    @property
    def caption(self) -> str:
        """A figure's caption on one line: what the panel shows, the number it stands for, and how it was judged."""
        return f"{self.claim.caption} {self.judged}"


def drawing_of(findings: Sequence[Finding]) -> Drawing:
    """The panels of several claims as one figure, lettered in its caption; of one claim as it is."""

    def draw(panels: list[Any]) -> None:
        for finding, axes in zip(findings, panels, strict=True):
            finding.claim.panel(axes, finding.series(), finding.evidence)

    captions = [finding.caption for finding in findings]
    if len(findings) > 1:
        captions = [f"({letter}) {text}" for letter, text in zip(LETTERS, captions, strict=False)]
    title = " ".join(finding.claim.title for finding in findings)
    height = HEIGHT * max(finding.claim.height for finding in findings)
    return Drawing(title, " ".join(captions), draw, panels=len(findings), height=height)


class Findings:
    """What `run`/evidence holds: iterate over the findings, in the claims' order; `skipped` lists the other claims
    (claim, statement, and as reason the tables that the run lacked).

    Raises NormprobeError (one line) for a run without evidence, a corrupt file and an unknown claim.
    """

    def __init__(self, run: Path) -> None:
        folder = run / "evidence"
        evidence = {item.claim: item for item in read_evidence(run)}
        for name in evidence.keys() - BY_NAME.keys():
            raise NormprobeError(
                f"expected claims among {', '.join(BY_NAME)}, got {name!r} in {folder / 'verdicts.json'}; "
                "read the run with the version of normprobe that wrote it"
            )
        self._findings = [
            Finding(claim, evidence[name], folder / f"{name}.parquet")
            for name, claim in BY_NAME.items()
            if name in evidence
        ]
        self.skipped = _read(run, "skipped.json", _skipped)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings)

    def __getitem__(self, claim: str) -> Finding:
        """Raises NothingToDraw for a claim that the run does not judge."""
        for finding in self:
            if finding.claim.name == claim:
                return finding
        reasons = {item["claim"]: item["reason"] for item in self.skipped}
        raise NothingToDraw(f"{claim} was skipped: {reasons.get(claim, 'the run was judged without it')}")


def _skipped(entry: dict[str, str]) -> dict[str, str]:
    """A claim that was not judged. Raises KeyError or ValueError for anything else."""
    named = {name: entry[name] for name in ("claim", "statement", "reason")}
    if not all(isinstance(text, str) for text in named.values()):
        raise ValueError(f"{named} has other than text")
    return named


def quick_note(run: Path) -> str:
    """That a run's dictionaries have the sizes of `--quick`; empty for another run, and for a folder of tables."""
    if not (run / "manifest.json").is_file():
        return ""
    saes = Run(run).manifest().get("arguments", {}).get("resolved", {}).get("saes", {})
    reduced = saes.get("given") is None and all(
        saes.get(name) == size for name, size in QUICK["saes"].items()
    )
    return "This run has the sizes of --quick, which are too small for verdicts." if reduced else ""


def read_evidence(run: Path) -> list[Evidence]:
    """The list in `evidence/verdicts.json`. Raises NormprobeError for a missing run, missing or corrupt evidence."""
    return _read(run, "verdicts.json", Evidence.from_dict)


def _read(run: Path, name: str, entry: Callable[[dict[str, Any]], _Entry]) -> list[_Entry]:
    path = run / "evidence" / name
    if not run.is_dir():
        raise NormprobeError(
            f"expected a run directory, got {run}, which does not exist; "
            f"make it with normprobe verify --out {run}"
        )
    if not path.is_file() or not Run(run).is_current("evidence"):
        raise NormprobeError(f"expected {path}, which this run does not have; finish it with {resuming(run)}")
    advice = f"delete {path.parent} and verify again"
    with refusing_damage(f"a list of claims in {path}", advice, ValueError, TypeError, KeyError):
        return [entry(item) for item in read_json(path)]
