"""All parts of an audit, each a file of its own, made side by side by worker processes; a killed audit resumes."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from normprobe.claims.registry import CLAIMS
from normprobe.config import Settings
from normprobe.errors import NormprobeError
from normprobe.runs.directory import Run, config_hash
from normprobe.runs.files import atomic_write_json
from normprobe.runs.tables import Tables

if TYPE_CHECKING:
    from normprobe.audit.networks import Passage
    from normprobe.models.open import OpenModel
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


def run_audit(run_path: Path, plan: Plan, *, processes: int | None = None, progress: bool = True) -> Path:
    """Fill `run_path`/audit/ with whatever is missing of the audit; returns the folder.

    Raises NormprobeError if the run is not finished, was not made by this version's stages, or its model is gone.
    """
    run = Run.load(run_path)
    for stage in ("traces", "saes", "reductions", "evidence"):
        run[stage]
    folder = run.path / "audit"
    parts = folder / config_hash({"plan": asdict(plan), "evidence": _label(run)})[:12]
    parts.mkdir(parents=True, exist_ok=True)
    missing = [(name, job) for name, job in _jobs(plan).items() if not (parts / f"{name}.json").exists()]
    with (
        tqdm(total=len(_jobs(plan)), initial=len(_jobs(plan)) - len(missing), desc="audit", unit="part",
             disable=not progress) as bar,
        ProcessPoolExecutor(
            processes or os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn")
        ) as pool,
    ):  # fmt: skip
        waiting = {pool.submit(job, run.path, plan): name for name, job in missing}
        for done in as_completed(waiting):
            atomic_write_json(parts / f"{waiting[done]}.json", done.result())
            bar.update()
    found = {name: json.loads((parts / f"{name}.json").read_text()) for name in _jobs(plan)}
    atomic_write_json(folder / "audit.json", {"plan": asdict(plan), **_gathered(found)})
    return folder


def _gathered(found: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The parts by kind: nulls, planted, coverage, and one list per subject."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, rows in found.items():
        kinds.setdefault(name.split(" ")[0], []).extend(rows)
    return kinds


def _label(run: Run) -> Any:
    return json.loads((run["evidence"] / "stage.json").read_text())["hash"]


Job = Callable[[Path, Plan], list[dict[str, Any]]]
"""Runs in a process of its own: what it needs it opens itself."""


def _jobs(plan: Plan) -> dict[str, Job]:
    """The parts by name, the longest first: none should be left to run alone at the end."""
    jobs: dict[str, Job] = {"subject-untrained": _Subject("untrained"), "subject-early": _Subject("early")}
    jobs["planted"] = _planted
    for trained, n in ((True, plan.trained), (False, plan.nulls)):
        kind = "trained" if trained else "random"
        for first in range(0, n, NULLS_AT_ONCE):
            last = min(first + NULLS_AT_ONCE, n)
            jobs[f"nulls {kind} {first:03d}"] = _Nulls(trained, first, last)
    return jobs | {f"coverage {claim.NAME}": _Coverage(claim.NAME) for claim in CLAIMS}


@dataclass(frozen=True)
class _Nulls:
    trained: bool
    first: int
    last: int

    def __call__(self, run_path: Path, plan: Plan) -> list[dict[str, Any]]:
        from normprobe.audit.networks import Passage
        from normprobe.audit.null import NullStudy

        opened, settings = _open(run_path, plan)
        n_sae = 2 * plan.problems if self.trained else 0
        passage = Passage.of(Tables(run_path), plan.problems, plan.problems, n_sae)
        layers = Tables(run_path).layers("model")
        study = NullStudy(opened, passage, layers, settings, self.trained, plan.seed)
        return [row for rows in study.nulls(self.first, self.last) for row in rows]


def _planted(run_path: Path, plan: Plan) -> list[dict[str, Any]]:
    from normprobe.audit.subjects import judge_planted

    opened, settings = _open(run_path, plan)
    return judge_planted(opened, _whole(Tables(run_path), 0), settings, plan.seed)


def _whole(tables: Tables, n_sae: int) -> Passage:
    """As many problems as the run has: power is asked at its own size."""
    from normprobe.audit.networks import Passage

    n = tables.problems["split"].value_counts()
    return Passage.of(tables, int(n["select"]), int(n["measure"]), n_sae)


@dataclass(frozen=True)
class _Subject:
    subject: str

    def __call__(self, run_path: Path, plan: Plan) -> list[dict[str, Any]]:
        from normprobe.audit.subjects import judge_in_place
        from normprobe.models.opening import open_model
        from normprobe.saes.stages import load_reader

        given, tables = _settings(run_path), Tables(run_path)
        opened, shape = _open(run_path, plan)
        subjects = {"untrained": opened.untrained(given.seed)}
        if self.subject == "early":
            if given.early_checkpoint is None:
                return []
            subjects["early"] = open_model(given.early_checkpoint, dtype=given.dtype, device=given.device)
        own = {
            subject: load_reader(run_path / "saes", subject, network) for subject, network in subjects.items()
        }
        passage = _whole(tables, 2 * plan.problems)
        return judge_in_place(subjects, own, self.subject, passage, tables.layers("model"), shape, plan.seed)


@dataclass(frozen=True)
class _Coverage:
    claim: str

    def __call__(self, run_path: Path, plan: Plan) -> list[dict[str, Any]]:
        from normprobe.audit.coverage import coverage

        (claim,) = [claim for claim in CLAIMS if self.claim == claim.NAME]
        tables = Tables(run_path)
        if any(not tables.has(need) for need in claim.NEEDS):
            return []
        found = coverage(
            claim.NAME,
            lambda resample: claim.evaluate(tables, resample, plan.seed)[0],
            plan.seed,
            plan.samples,
        )
        return [] if found is None else [asdict(found)]


def _settings(run_path: Path) -> Settings:
    """The arguments of the run. Raises NormprobeError if it is not one of `normprobe verify`."""
    resolved = Run.load(run_path).manifest()["arguments"]["resolved"]
    try:
        return Settings.of(resolved)
    except (TypeError, KeyError) as error:
        raise NormprobeError(
            f"expected a run of `normprobe verify` in {run_path}, got another; audit a finished verification"
        ) from error


def _open(run_path: Path, plan: Plan) -> tuple[OpenModel, SaeSettings]:
    """The run's model and the shape of its dictionaries, in this process, on one thread."""
    import torch

    from normprobe.models.opening import open_for
    from normprobe.saes.training import SaeSettings

    torch.set_num_threads(1)  # the processes are the parallelism
    given = _settings(run_path)
    opened = open_for(given)
    return opened, SaeSettings(width=given.sae_width, n_samples=plan.sae_samples)
