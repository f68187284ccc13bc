"""The stages of a study in order: what each reads, and what fills its folder.

Whatever needs torch is imported where it is used: which stages have to run is decided without it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from normprobe.claims.conditions import failures, measure_conditions
from normprobe.claims.measure.signal_comparison import NAME as SIGNALS
from normprobe.claims.registry import CLAIMS, evaluate_all
from normprobe.config import Study
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.report.conditions_table import conditions_text
from normprobe.runs.atomic import atomic_write_json
from normprobe.runs.directory import Run, StageLabel, read_label
from normprobe.runs.layout import FILES
from normprobe.runs.tables import stage_of
from normprobe.session import Session
from normprobe.settings import Settings

CLAIM_KEYS = "keys.json"
MODEL_FREE = ("problems", "paradigm", "evidence")
"""Stages that open no model."""
WRITING = ("responses", "experiments", "importance")
EVALUATING = ("methods", "tasks")
"""Stages that write responses, by the engine of the model or that of the evaluation."""
OPTIONAL = ("methods", "importance", "paradigm")
"""Stages whose tables some claims read where a run has them."""


@dataclass(frozen=True)
class Stage:
    """A stage: what it reads and what fills its folder. `version` is raised by hand when its output changes.

    settings: what it reads of a study, as JSON can hold it. reads: the stages that must be finished before. optional:
    stages that it reads where they are finished. on_request: a command of its own runs it, and its settings stay those
    it was made with when other commands continue the run.
    """

    name: str
    version: int
    settings: Callable[[Study], dict[str, Any]]
    reads: tuple[str, ...]
    fill: Callable[[Session, Path], None]
    optional: tuple[str, ...] = ()
    on_request: bool = False


def _fill_problems(session: Session, folder: Path) -> None:
    FILES["problems"].write(folder, session.study.source.load(session.sizes, session.study.seed))


def _fill_responses(session: Session, folder: Path) -> None:
    from normprobe.saes.stages import resolve_settings
    from normprobe.tracing.responses import fill_responses

    # What does not fit the model is refused before it answers.
    resolve_settings(session.study.saes, session.model(), session.rank)
    with session.engine() as engine:
        fill_responses(
            folder,
            engine,
            session.tables.problems,
            max_new_tokens=session.study.max_new_tokens,
            batch_size=session.study.responses.batch_size,
            scorer=session.study.source.score,
            progress=session.bars,
        )


def _require_thinking(session: Session) -> None:
    """Show the conditions of the responses, unless the traces have been made of them by now; what is made of them costs
    hours, so think has to think."""
    conditions = measure_conditions(session.tables.responses)
    if not session.run.is_current("traces"):
        session.log(conditions_text(conditions))
    failed = failures(conditions)
    if "think" in failed and not session.study.allow_failed_conditions:
        raise NormprobeError(
            f"expected a model that thinks when it is asked to, but {failed['think']}; see normprobe doctor, "
            "--thinking-format and --max-new-tokens, or go on with --allow-failed-conditions"
        )


def _fill_traces(session: Session, folder: Path) -> None:
    from normprobe.tracing.trace import fill_traces

    _require_thinking(session)
    fill_traces(
        folder,
        session.subjects,
        session.tables.responses,
        session.tables.problems,
        roles=session.study.source.roles,
        memory=session.study.memory,
        lens_tokens=session.study.tracing.lens_tokens,
        progress=session.bars,
    )


def _fill_saes(session: Session, folder: Path) -> None:
    from normprobe.saes.stages import fill_saes

    _require_thinking(session)
    if (of := session.study.saes.of) is not None and session.rank.leads:
        session.run.identify(dictionaries={"given": session.study.saes.given, "of the model": of})
    fill_saes(
        folder,
        session.subjects,
        session.tables.responses,
        settings=session.study.saes,
        seed=session.study.seed,
        memory=session.study.memory,
        progress=session.bars,
        rank=session.rank,
    )


def _fill_reductions(session: Session, folder: Path) -> None:
    from normprobe.saes.stages import fill_reductions

    responses, saes = session.tables.responses, session.run["saes"]
    memory, progress = session.study.memory, session.bars
    fill_reductions(folder, session.subjects, responses, saes, memory=memory, progress=progress)


def _fill_profile(session: Session, folder: Path) -> None:
    tables, identity = session.tables, session.model().identity.to_dict()
    LayerProfile.measure(tables.tokens, tables.signals("model")["norm"], identity).save(
        folder / FILES["profile"].name
    )


def _fill_experiments(session: Session, folder: Path) -> None:
    from normprobe.experiments.suppression import fill_experiments

    with session.engine() as engine:
        fill_experiments(
            folder,
            engine,
            session.profile,
            session.tables.problems,
            session.tables.tokens,
            max_new_tokens=session.study.max_new_tokens,
            batch_size=session.study.experiments.batch_size,
            seed=session.study.seed,
            scorer=session.study.source.score,
            progress=session.bars,
        )


def _fill_methods(session: Session, folder: Path) -> None:
    from normprobe.experiments.method_parts import MethodInputs
    from normprobe.experiments.methods import fill_methods

    problems, responses = (session.run.path / FILES[name].path for name in ("problems", "responses"))
    inputs = MethodInputs(session.study, session.profile, problems, responses)
    if session.study.evaluated.engine == "hf":
        fill_methods(
            folder, inputs, processes=session.processes or os.cpu_count() or 1, progress=session.bars
        )
        return
    # One engine serves all requests at once; worker processes would start one each.
    with session.engine(session.study.evaluated) as engine:
        fill_methods(folder, replace(inputs, held=engine), processes=None, progress=session.bars)


def _fill_tasks(session: Session, folder: Path) -> None:
    from normprobe.experiments.task_treatments import run_tasks  # lm-eval is an extra

    FILES["tasks"].write(folder, run_tasks(session.study, session.profile))


def _fill_evidence(session: Session, folder: Path) -> None:
    """Judge every claim; what has the same key in the evidence that is there is taken over from it."""
    label, seed = read_label(folder), session.study.seed
    finished, known = session.run.path / "evidence", {}
    if (finished / CLAIM_KEYS).exists():
        known = json.loads((finished / CLAIM_KEYS).read_text(encoding="utf-8"))
    keys = {
        claim.name: _evidence_key(claim.name, claim.version, claim.needs | claim.uses, label)
        for claim in CLAIMS
    }
    keys[SIGNALS] = _evidence_key(SIGNALS, 2, (), label)
    unchanged = {name for name, key in keys.items() if known.get(name) == key}
    for name in unchanged:
        for path in finished.glob(f"{name}.*"):
            shutil.copy2(path, folder)
    allow = session.study.allow_failed_conditions
    evaluate_all(session.tables, seed, folder, unchanged, allow_failed=allow)
    atomic_write_json(folder / CLAIM_KEYS, keys)


def _evidence_key(name: str, version: int, tables: Collection[str], evidence: StageLabel) -> str:
    """What one part of the evidence depends on: what reads no table of methods/ outlasts an evaluation of methods."""
    of_tables = set(map(stage_of, tables))
    reads = {
        stage: key for stage, key in evidence.reads.items() if stage not in OPTIONAL or stage in of_tables
    }
    settings = {key: value for key, value in evidence.settings.items() if key != "claims"}
    settings |= {"version": version}
    return StageLabel(name, evidence.version, settings, reads).key


def _fill_audit(session: Session, folder: Path) -> None:
    from normprobe.audit.networks import AuditInputs
    from normprobe.audit.study import fill_audit
    from normprobe.saes.stages import shape_of

    inputs = AuditInputs(session.run.path, session.study, *shape_of(session.run["saes"]))
    fill_audit(folder, inputs, processes=session.processes, progress=session.bars)


def _fill_features(session: Session, folder: Path) -> None:
    from normprobe.feature_pages.stage import fill_features
    from normprobe.saes.stages import load_reader

    features, model = session.tables.features, session.model()
    fill_features(
        folder,
        model,
        session.tables.responses,
        features[features["reader"] == "model"],
        load_reader(session.run["saes"], "model", model),
        settings=session.study.features,
        seed=session.study.seed,
        source=session.study.source.name,
        memory=session.study.memory,
        progress=session.bars,
    )


def _fill_dictionaries(session: Session, folder: Path) -> None:
    from normprobe.saes.evaluation import fill_dictionaries

    study = session.study
    fill_dictionaries(
        folder,
        {name: session.model(name) for name in ("model", "untrained")},
        session.tables,
        session.run["saes"],
        settings=study.dictionaries,
        training=study.saes,
        seed=study.seed,
        memory=study.memory,
        progress=session.bars,
    )


def _fill_importance(session: Session, folder: Path) -> None:
    from normprobe.experiments.importance import fill_importance

    with session.engine() as engine:
        fill_importance(
            folder,
            engine,
            session.tables.problems,
            session.tables.responses,
            settings=session.study.importance,
            max_new_tokens=session.study.max_new_tokens,
            seed=session.study.seed,
            scorer=session.study.source.score,
            progress=session.bars,
        )


def _fill_paradigm(session: Session, folder: Path) -> None:
    from normprobe.paradigm_runs import compared_runs, fill_paradigm

    tables = compared_runs(session.run.path, session.study.paradigm)
    for name, of in tables.items():
        if of.path != session.run.path:
            model = Run.load(of.path).manifest()["identities"]["model"]
            session.run.identify(**{name: {"run": str(of.path), **model}})
    fill_paradigm(folder, tables)


def _read(*paths: str) -> Callable[[Study], dict[str, Any]]:
    """Settings by their paths in the study; a section gives its identity."""

    def read(study: Study) -> dict[str, Any]:
        values = {path: attrgetter(path)(study) for path in paths}
        return {
            path: value.identity() if isinstance(value, Settings) else value for path, value in values.items()
        }

    return read


def _claims(study: Study) -> dict[str, Any]:
    return {
        "seed": study.seed,
        "allow_failed_conditions": study.allow_failed_conditions,
        "claims": {claim.name: claim.version for claim in CLAIMS},
    }


def _evaluated(*paths: str) -> Callable[[Study], dict[str, Any]]:
    """Settings by their paths, and the engine, if it is not the default one."""
    read = _read(*paths)
    return lambda study: (
        read(study) | ({} if study.evaluated.engine == "hf" else {"engine": study.evaluated.engine})
    )


_MEASURED = ("problems", "responses", "traces", "reductions", "profile", "experiments")
_SUITE = ("methods.tune", "methods.test", "methods.samples")
_TASKS = tuple(f"methods.{name}" for name in "tasks limit include_path temperature answers tune".split())

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("problems", 1, _read("problem_set", "seed"), (), _fill_problems),
        Stage(
            "responses",
            1,
            _read("model", "thinking", "max_new_tokens", "responses.batch_size", "seed"),
            ("problems",),
            _fill_responses,
        ),
        Stage("traces", 1, _read("early", "tracing", "seed"), ("problems", "responses"), _fill_traces),
        Stage("saes", 2, _read("saes", "early", "seed"), ("responses",), _fill_saes),
        Stage("reductions", 2, _read(), ("responses", "saes"), _fill_reductions),
        Stage("profile", 1, _read(), ("traces",), _fill_profile),
        Stage(
            "experiments",
            1,
            _read("max_new_tokens", "experiments", "seed"),
            ("problems", "traces", "profile"),
            _fill_experiments,
        ),
        Stage(
            "methods",
            2,
            _evaluated(*_SUITE, "seed"),
            ("problems", "responses", "profile"),
            _fill_methods,
            on_request=True,
        ),
        Stage("tasks", 3, _evaluated(*_TASKS, "seed"), ("profile",), _fill_tasks, on_request=True),
        Stage(
            "importance",
            1,
            _read("importance", "max_new_tokens", "seed"),
            ("problems", "responses"),
            _fill_importance,
            on_request=True,
        ),
        Stage(
            "paradigm",
            1,
            _read("paradigm", "seed"),
            ("problems", "responses", "traces", "reductions"),
            _fill_paradigm,
            on_request=True,
        ),
        Stage("evidence", 1, _claims, _MEASURED, _fill_evidence, optional=OPTIONAL),
        Stage("audit", 2, _read("audit", "seed"), ("saes", "evidence"), _fill_audit, on_request=True),
        Stage(
            "features",
            1,
            _read("features", "seed"),
            ("responses", "saes", "reductions"),
            _fill_features,
            on_request=True,
        ),
        Stage(
            "dictionaries",
            1,
            _read("dictionaries", "seed"),
            ("responses", "traces", "saes", "reductions"),
            _fill_dictionaries,
            on_request=True,
        ),
    )
}
"""All stages, each after those it reads."""


def needed(targets: Collection[str]) -> list[str]:
    """The targets and all stages that they read, in order."""
    names = set(targets)
    for stage in reversed(STAGES.values()):
        if stage.name in names:
            names.update(stage.reads)
    return [name for name in STAGES if name in names]
