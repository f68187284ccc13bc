"""The jobs of an audit, made by worker processes, each result a file of its own; a killed audit resumes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from normprobe.audit.coverage import coverage
from normprobe.audit.networks import Passage
from normprobe.audit.subjects import judge_in_place, judge_nulls, judge_planted
from normprobe.claims.registry import BY_NAME, CLAIMS
from normprobe.config import AuditSettings, SaeSettings, Study
from normprobe.models.model import OpenModel
from normprobe.models.open import open_for
from normprobe.runs.jobs import JSON, JobRunner
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables
from normprobe.saes.stages import load_reader

NULLS_AT_ONCE = 20


@dataclass(frozen=True)
class AuditInputs:
    """What an audit reads: a finished run, its study, and the width and k of its dictionaries."""

    run: Path
    study: Study
    width: int
    k: int

    @property
    def tables(self) -> Tables:
        return Tables(self.run)

    def open(self) -> OpenModel:
        """Open the run's model in this process."""
        return open_for(self.study.model)

    @property
    def saes(self) -> SaeSettings:
        """Settings of the dictionaries that an audit trains: the shape of the run's own."""
        return replace(self.study.saes, width=self.width, k=self.k, n_samples=self.study.audit.sae_samples)

    def whole(self, n_sae: int) -> Passage:
        """As many problems as the run has: power is asked at its own size."""
        n = self.tables.problems["split"].value_counts()
        return Passage.of(self.tables, int(n["select"]), int(n["measure"]), n_sae)


def fill_audit(
    folder: Path, inputs: AuditInputs, *, processes: int | None = None, progress: bool = True
) -> None:
    """Write audit.json into `folder`: every null, planted effect, subject and coverage. Resumes part by part.

    Raises NormprobeError if a table of the run is missing or its model is gone.
    """
    parts, jobs = folder / "parts", _jobs(inputs.study.audit)
    with JobRunner(
        parts,
        JSON,
        label="audit",
        total=len(jobs),
        processes=processes or os.cpu_count() or 1,
        progress=progress,
    ) as runner:
        found = runner.run({name: partial(job, inputs) for name, job in jobs.items()})
    kinds: dict[str, list[dict[str, Any]]] = {}  # nulls, planted, coverage, and one per subject
    for name, rows in found.items():
        kinds.setdefault(name.split(" ")[0], []).extend(rows)
    plan = {**asdict(inputs.study.audit), "seed": inputs.study.seed}
    FILES["audit"].write(folder, {"plan": plan, **kinds})
    shutil.rmtree(parts)


_AuditJob = Callable[[AuditInputs], list[dict[str, Any]]]
"""Runs in a worker process: what it needs it opens itself."""


def _jobs(plan: AuditSettings) -> dict[str, _AuditJob]:
    """The parts by name, the longest first: none should be left to run alone at the end."""
    jobs: dict[str, _AuditJob] = {
        f"subject-{subject}": partial(_subject, subject) for subject in ("untrained", "early")
    }
    jobs["planted"] = _planted
    for kind, n in (("trained", plan.trained), ("random", plan.nulls)):
        for first in range(0, n, NULLS_AT_ONCE):
            numbers = range(first, min(first + NULLS_AT_ONCE, n))
            jobs[f"nulls {kind} {first:03d}"] = partial(_nulls, kind == "trained", numbers)
    return jobs | {f"coverage {claim.name}": partial(_coverage, claim.name) for claim in CLAIMS}


def _nulls(trained: bool, numbers: range, inputs: AuditInputs) -> list[dict[str, Any]]:
    n, layers = inputs.study.audit.problems, inputs.tables.layers("model")
    passage = Passage.of(inputs.tables, n, n, 2 * n if trained else 0)
    return judge_nulls(inputs.open(), passage, layers, inputs.saes, trained, numbers, inputs.study.seed)


def _planted(inputs: AuditInputs) -> list[dict[str, Any]]:
    return judge_planted(inputs.open(), inputs.whole(0), inputs.saes, inputs.study.seed)


def _subject(subject: str, inputs: AuditInputs) -> list[dict[str, Any]]:
    study, layers = inputs.study, inputs.tables.layers("model")
    subjects = {"untrained": inputs.open().untrained(study.seed)}
    if subject == "early":
        if study.model.early_checkpoint is None:
            return []
        subjects["early"] = open_for(study.model.early_checkpoint)
    own = {name: load_reader(inputs.run / "saes", name, network) for name, network in subjects.items()}
    passage = inputs.whole(2 * study.audit.problems)
    return judge_in_place(subjects, own, subject, passage, layers, inputs.saes, study.seed)


def _coverage(name: str, inputs: AuditInputs) -> list[dict[str, Any]]:
    study, tables = inputs.study, inputs.tables
    found = coverage(
        name,
        lambda resample: BY_NAME[name].judge(tables, resample, study.seed)[0],
        study.seed,
        study.audit.samples,
    )
    return [] if found is None else [asdict(found)]
