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
from normprobe.config import Settings
from normprobe.runs.jobs import JSON, JobRunner
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables

if TYPE_CHECKING:
    from normprobe.audit.networks import Passage
    from normprobe.models.model import OpenModel
    from normprobe.saes.training import SaeSettings

NULLS_AT_ONCE = 20


@dataclass(frozen=True)
class Plan:
    """How large an audit is. problems: of each split that null networks read; samples: for coverage, per claim.

    Planted models and the subjects in the model's place read as many problems as the run has.
    """

    nulls: int = 200
    trained: int = 10
    problems: int = 40
    samples: int = 1000
    sae_samples: int = 20_000
    seed: int = 0


QUICK = Plan(nulls=4, trained=0, problems=24, samples=50, sae_samples=4_000)


@dataclass(frozen=True)
class AuditInputs:
    """What an audit reads: a finished run, how to open its models, and the width and k of its dictionaries."""

    run: Path
    model: Settings
    width: int
    k: int
    plan: Plan

    @property
    def tables(self) -> Tables:
        return Tables(self.run)

    def open(self) -> OpenModel:
        """Open the run's model in this process."""
        from normprobe.models.open import open_for

        return open_for(self.model)

    @property
    def saes(self) -> SaeSettings:
        """Settings of the dictionaries that an audit trains: the shape of the run's own."""
        from normprobe.saes.training import SaeSettings

        return SaeSettings(self.width, self.k, self.plan.sae_samples)


def fill_audit(
    folder: Path, inputs: AuditInputs, *, processes: int | None = None, progress: bool = True
) -> None:
    """Write audit.json into `folder`: every null, planted effect, subject and coverage. Resumes part by part.

    Raises NormprobeError if a table of the run is missing or its model is gone.
    """
    parts, jobs = folder / "parts", _jobs(inputs.plan)
    with JobRunner(
        parts,
        JSON,
        label="audit",
        total=len(jobs),
        processes=processes or os.cpu_count() or 1,
        progress=progress,
    ) as runner:
        found = runner.run({name: partial(job, inputs) for name, job in jobs.items()})
    FILES["audit"].write(folder, {"plan": asdict(inputs.plan), **_gathered(found)})
    shutil.rmtree(parts)


def _gathered(found: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The parts by kind: nulls, planted, coverage, and one list per subject."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, rows in found.items():
        kinds.setdefault(name.split(" ")[0], []).extend(rows)
    return kinds


_AuditJob = Callable[[AuditInputs], list[dict[str, Any]]]
"""Runs in a worker process: what it needs it opens itself."""


def _jobs(plan: Plan) -> dict[str, _AuditJob]:
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

        opened, plan, tables = inputs.open(), inputs.plan, inputs.tables
        n_sae = 2 * plan.problems if self.trained else 0
        passage = Passage.of(tables, plan.problems, plan.problems, n_sae)
        study = NullStudy(opened, passage, tables.layers("model"), inputs.saes, self.trained, plan.seed)
        return [row for rows in study.nulls(self.first, self.last) for row in rows]


def _planted(inputs: AuditInputs) -> list[dict[str, Any]]:
    from normprobe.audit.subjects import judge_planted

    return judge_planted(inputs.open(), _whole(inputs.tables, 0), inputs.saes, inputs.plan.seed)


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

        given, plan, tables = inputs.model, inputs.plan, inputs.tables
        subjects = {"untrained": inputs.open().untrained(given.seed)}
        if self.subject == "early":
            if given.early_checkpoint is None:
                return []
            subjects["early"] = open_for(replace(given, model=given.early_checkpoint, revision=None))
        own = {
            subject: load_reader(inputs.run / "saes", subject, network)
            for subject, network in subjects.items()
        }
        passage = _whole(tables, 2 * plan.problems)
        return judge_in_place(
            subjects, own, self.subject, passage, tables.layers("model"), inputs.saes, plan.seed
        )


@dataclass(frozen=True)
class _Coverage:
    claim: str

    def __call__(self, inputs: AuditInputs) -> list[dict[str, Any]]:
        from normprobe.audit.coverage import coverage

        claim, plan, tables = BY_NAME[self.claim], inputs.plan, inputs.tables
        found = coverage(
            claim.name,
            lambda resample: claim.judge(tables, resample, plan.seed)[0],
            plan.seed,
            plan.samples,
        )
        return [] if found is None else [asdict(found)]
