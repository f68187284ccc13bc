"""The jobs of an audit, made by worker processes, each result a file of its own; a killed audit resumes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from normprobe.audit.coverage import coverage
from normprobe.audit.networks import AuditInputs
from normprobe.audit.subjects import judge_in_place, judge_nulls, judge_planted
from normprobe.claims.registry import BY_NAME, CLAIMS
from normprobe.config import AuditSettings
from normprobe.runs.jobs import JSON, JobRunner
from normprobe.runs.layout import FILES

NULLS_AT_ONCE = 20


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
        f"subject-{subject}": partial(judge_in_place, subject) for subject in ("untrained", "early")
    }
    jobs["planted"] = judge_planted
    for kind, n in (("trained", plan.trained), ("random", plan.nulls)):
        for first in range(0, n, NULLS_AT_ONCE):
            numbers = range(first, min(first + NULLS_AT_ONCE, n))
            jobs[f"nulls {kind} {first:03d}"] = partial(judge_nulls, kind == "trained", numbers)
    return jobs | {f"coverage {claim.name}": partial(_coverage, claim.name) for claim in CLAIMS}


def _coverage(name: str, inputs: AuditInputs) -> list[dict[str, Any]]:
    study, tables = inputs.study, inputs.tables
    found = coverage(
        name,
        lambda resample: BY_NAME[name].judge(tables, resample, study.seed)[0],
        study.seed,
        study.audit.samples,
    )
    return [] if found is None else [asdict(found)]
