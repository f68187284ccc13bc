"""A run's findings: evidence and the series behind it, as the report, the figures and the comparisons read them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pandas as pd

from normprobe.claims.evidence import Control, Decision, Evidence
from normprobe.claims.registry import CLAIMS
from normprobe.errors import NormprobeError

_Entry = TypeVar("_Entry")


class NothingToDraw(NormprobeError):
    """The run lacks what a figure shows; the message says why. Not a fault: a figure of many is left out."""


@dataclass(frozen=True)
class Skipped:
    """A claim that the run could not judge, and which tables it lacked."""

    claim: str
    statement: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """One judged claim: its module, its evidence, and the file that its panel is drawn from."""

    module: ModuleType
    evidence: Evidence
    series_file: Path

    def series(self) -> pd.DataFrame:
        """The tidy series of the claim. Raises NormprobeError when its file is missing or corrupt."""
        try:
            return pd.read_parquet(self.series_file)
        except (OSError, ValueError) as error:
            raise NormprobeError(
                f"expected the series of {self.evidence.claim} in {self.series_file}, got {_one_line(error)}; "
                f"delete {self.series_file.parent} and verify again"
            ) from error

    def draw(self, axes: Any) -> None:
        """The claim's panel on `axes` (matplotlib)."""
        self.module.panel(axes, self.series(), self.evidence)


class Findings:
    """What `run`/evidence holds: `judged` findings in the registry's order, and `skipped` claims.

    Raises NormprobeError (one line) for a run without evidence, a corrupt file and an unknown claim.
    """

    def __init__(self, run: Path) -> None:
        folder = run / "evidence"
        modules = {module.NAME: module for module in CLAIMS}
        evidence = {item.claim: item for item in read_evidence(run)}
        for claim in evidence.keys() - modules.keys():
            raise NormprobeError(
                f"expected claims among {', '.join(modules)}, got {claim!r} in {folder / 'verdicts.json'}; "
                "read the run with the version of normprobe that wrote it"
            )
        self.judged = [
            Finding(module, evidence[name], folder / f"{name}.parquet")
            for name, module in modules.items()
            if name in evidence
        ]
        self.skipped = _read(run, "skipped.json", lambda entry: Skipped(**entry))

    def __getitem__(self, claim: str) -> Finding:
        """Raises NothingToDraw for a claim that the run does not judge."""
        for finding in self.judged:
            if finding.evidence.claim == claim:
                return finding
        reasons = {item.claim: item.reason for item in self.skipped}
        raise NothingToDraw(f"{claim} was skipped: {reasons.get(claim, 'the run was judged without it')}")


def read_evidence(run: Path) -> list[Evidence]:
    """The list in `evidence/verdicts.json`. Raises NormprobeError for a missing run, missing or corrupt evidence."""
    return _read(run, "verdicts.json", _evidence)


def _read(run: Path, name: str, entry: Callable[[dict[str, Any]], _Entry]) -> list[_Entry]:
    path = run / "evidence" / name
    if not run.is_dir():
        raise NormprobeError(
            f"expected a run directory, got {run}, which does not exist; "
            f"make it with `python -m normprobe.verify --out {run}`"
        )
    if not path.is_file():
        raise NormprobeError(
            f"expected {path}, which this run does not have; "
            f"finish it with `python -m normprobe.verify --out {run}`"
        )
    try:
        return [entry(item) for item in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise NormprobeError(
            f"expected a list of claims in {path}, got {_one_line(error)}; delete {path.parent} and verify again"
        ) from error


def _evidence(entry: dict[str, Any]) -> Evidence:
    controls = tuple(Control(**_measured(control)) for control in entry["controls"])
    return Evidence(**{**_measured(entry), "controls": controls, "decision": _decision(entry["decision"])})


def _decision(entry: dict[str, Any]) -> Decision:
    low, high = entry["interval"]
    numbers = {
        "margin": _float(entry["margin"]),
        "interval": (_float(low), _float(high)),
        "p": _float(entry["p"]),
    }
    return Decision(**{**entry, **numbers, "missing": tuple(entry["missing"])})


def _measured(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with estimate and interval as floats: what was not finite was written as null."""
    low, high = entry["interval"]
    return {**entry, "estimate": _float(entry["estimate"]), "interval": (_float(low), _float(high))}


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__} ({' '.join(str(error).split())})"
