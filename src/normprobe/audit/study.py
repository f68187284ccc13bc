"""The jobs of an audit, made by worker processes, each result a file of its own; a killed audit resumes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normprobe.claims.registry import BY_NAME, CLAIMS
from normprobe.config import AuditSettings, SaeSettings, Study
from normprobe.runs.jobs import JSON, JobRunner
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables

if TYPE_CHECKING:
    from normprobe.audit.networks import Passage
    from normprobe.models.model import OpenModel

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
        from normprobe.models.open import open_for

        return open_for(self.study.model)

    @property
    def saes(self) -> SaeSettings:
        """Settings of the dictionaries that an audit trains: the shape of the run's own."""
        return replace(self.study.saes, width=self.width, k=self.k, n_samples=self.study.audit.sae_samples)


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
    plan = {**asdict(inputs.study.audit), "seed": inputs.study.seed}
    FILES["audit"].write(folder, {"plan": plan, **_gathered(found)})
    shutil.rmtree(parts)


def _gathered(found: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The parts by kind: nulls, planted, coverage, and one list per subject."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, rows in found.items():
        kinds.setdefault(name.split(" ")[0], []).extend(rows)
    return kinds


_AuditJob = Callable[[AuditInputs], list[dict[str, Any]]]
"""Runs in a worker process: what it needs it opens itself."""


def _jobs(plan: AuditSettings) -> dict[str, _AuditJob]:
    """The parts by name, the longest first: none should be left to run alone at the end."""
    jobs: dict[str, _AuditJob] = {
        "subject-untrained": _Subject("untrained"),
        "subject-early": _Subject("early"),
    }
    jobs["planted"] = _planted
    for trained, n in ((True, plan.trained), (False, plan.nulls)):
        kind = "trained" if trained else "random"
        for first in range(0, n, NULLS_AT_ONCE):
            last = min(first + NULLS_AT_ONCE, n)
            jobs[f"nulls {kind} {first:03d}"] = _Nulls(trained, first, last)
    return jobs | {f"coverage {claim.name}": _Coverage(claim.name) for claim in CLAIMS}


@dataclass(frozen=True)
class _Nulls:
    trained: bool
    first: int
    last: int

    def __call__(self, inputs: AuditInputs) -> list[dict[str, Any]]:
        from normprobe.audit.networks import Passage
        from normprobe.audit.null import NullStudy

        opened, study, tables = inputs.open(), inputs.study, inputs.tables
        n = study.audit.problems
        passage = Passage.of(tables, n, n, 2 * n if self.trained else 0)
        nulls = NullStudy(opened, passage, tables.layers("model"), inputs.saes, self.trained, study.seed)
        return [row for rows in nulls.nulls(self.first, self.last) for row in rows]


def _planted(inputs: AuditInputs) -> list[dict[str, Any]]:
    from normprobe.audit.subjects import judge_planted

    return judge_planted(inputs.open(), _whole(inputs.tables, 0), inputs.saes, inputs.study.seed)


def _whole(tables: Tables, n_sae: int) -> Passage:
    """As many problems as the run has: power is asked at its own size."""
    from normprobe.audit.networks import Passage

    n = tables.problems["split"].value_counts()
    return Passage.of(tables, int(n["select"]), int(n["measure"]), n_sae)


@dataclass(frozen=True)
class _Subject:
    subject: str

    def __call__(self, inputs: AuditInputs) -> list[dict[str, Any]]:
        from normprobe.audit.subjects import judge_in_place
        from normprobe.models.open import open_for
        from normprobe.saes.stages import load_reader

        study, tables = inputs.study, inputs.tables
        subjects = {"untrained": inputs.open().untrained(study.seed)}
        if self.subject == "early":
            if study.model.early_checkpoint is None:
                return []
            subjects["early"] = open_for(study.model.early_checkpoint)
        own = {
            subject: load_reader(inputs.run / "saes", subject, network)
            for subject, network in subjects.items()
        }
        passage = _whole(tables, 2 * study.audit.problems)
        return judge_in_place(
            subjects, own, self.subject, passage, tables.layers("model"), inputs.saes, study.seed
        )


@dataclass(frozen=True)
class _Coverage:
    claim: str

    def __call__(self, inputs: AuditInputs) -> list[dict[str, Any]]:
        from normprobe.audit.coverage import coverage

        claim, study, tables = BY_NAME[self.claim], inputs.study, inputs.tables
        found = coverage(
            claim.name,
            lambda resample: claim.judge(tables, resample, study.seed)[0],
            study.seed,
            study.audit.samples,
        )
        return [] if found is None else [asdict(found)]
