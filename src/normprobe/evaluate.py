"""Add to a finished run: `normprobe evaluate RUN`, and `audit`, `features`, `dictionaries`, `importance`, `paradigm`.

Each reads the run's own config.yaml and changes its own section of it: `evaluate` asks whether ALRR, ERSS and LRS
improve accuracy at equal compute and on held-out problems, `audit` whether the verdicts would fail where they should
and succeed where an effect is there, `features` whether single tokens trigger the reasoning features, `dictionaries`
how much of the model's states and predictions its dictionaries render, and which features come back if trained again,
`importance` which sentences of the thoughts the answers hang on, and whether the norm is higher there, `paradigm`
whether a model trained by RL spikes more sharply than one trained by SFT.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from normprobe.config import (
    QUICK,
    AuditSettings,
    DictionarySettings,
    FeatureSettings,
    ImportanceSettings,
    MethodSettings,
    ParadigmSettings,
    Study,
)
from normprobe.console import parse, print_json, run_main
from normprobe.errors import NormprobeError
from normprobe.settings import optional
from normprobe.study_file import changed, read_study

# Whatever is heavy is imported where it is used: --help must not wait for it.
if TYPE_CHECKING:
    from normprobe.runs.tables import Tables
    from normprobe.session import Session


@dataclass(frozen=True)
class RunCommand:
    """A run and what a command does with it."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run directory of normprobe verify, such as runs/tiny-thinker"""
    dry_run: bool = False
    """list what would run, why, and about how long it takes"""
    json: bool = False
    """print one JSON document instead of text"""


@dataclass(frozen=True)
class SizedCommand(RunCommand):
    """The same in sizes of one's choice."""

    quick: bool = False
    """sizes that show that everything works, too small to tell"""


@dataclass(frozen=True)
class ParallelCommand(SizedCommand):
    """The same by several processes."""

    processes: Annotated[int | None, optional(metavar="INT")] = None
    """worker processes (one per core)"""


@dataclass(frozen=True)
class EvaluateCommand(ParallelCommand):
    """Try the three methods on a run's model, at equal compute and on held-out problems: do they help?"""

    methods: OmitArgPrefixes[MethodSettings] = field(default_factory=MethodSettings)


@dataclass(frozen=True)
class AuditCommand(ParallelCommand):
    """Audit a run: null networks, planted effects, coverage, power."""

    strict: bool = False
    """exit with 1 if the audit fails"""
    audit: OmitArgPrefixes[AuditSettings] = field(default_factory=AuditSettings)


@dataclass(frozen=True)
class FeaturesCommand(SizedCommand):
    """Write a page on the clearest reasoning features of each layer: do single tokens trigger them?"""

    features: OmitArgPrefixes[FeatureSettings] = field(default_factory=FeatureSettings)


@dataclass(frozen=True)
class DictionariesCommand(SizedCommand):
    """Evaluate the dictionaries of a run on held-out states: R², loss recovered when spliced in, stability."""

    dictionaries: OmitArgPrefixes[DictionarySettings] = field(default_factory=DictionarySettings)


@dataclass(frozen=True)
class ImportanceCommand(SizedCommand):
    """Find the sentences of a run's thoughts that the answers hang on, for the claim marks_critical_steps."""

    importance: OmitArgPrefixes[ImportanceSettings] = field(default_factory=ImportanceSettings)


@dataclass(frozen=True)
class ParadigmCommand(RunCommand):
    """Compare a run of a model trained by RL with one trained by SFT from the same base: is its late spike sharper?"""

    paradigm: OmitArgPrefixes[ParadigmSettings] = field(default_factory=ParadigmSettings)


_Command = TypeVar("_Command", bound=RunCommand)


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.evaluate` and `normprobe evaluate`."""
    command, study = _parse(EvaluateCommand, argv, "evaluate", "methods")
    plan, with_tasks = command.methods, command.methods.tasks is not None
    if with_tasks and plan.temperature is None and plan.samples != study.methods.samples:
        raise NormprobeError(
            f"expected --temperature with --tasks and --samples {plan.samples}, got none; give one, such as 0.6, or "
            "leave --samples out: each document is then answered once"
        )
    targets = ["tasks"] if with_tasks else ["methods", "evidence"]
    session = _run(command, replace(study, methods=plan), *targets)
    if session is None:
        return
    from normprobe.report.document import records, run_document
    from normprobe.report.task_results import task_text
    from normprobe.report.terminal import terminal_text

    if with_tasks:
        _show(command, session, lambda tables: {"tasks": records(tables.tasks)}, task_text)
    else:
        _show(command, session, lambda _: run_document(command.run), lambda _: terminal_text(command.run))


def audit(argv: list[str] | None = None) -> int:
    """Command line of `normprobe audit`; 1 if the audit fails, with --strict."""
    command, study = _parse(AuditCommand, argv, "audit", "audit")
    session = _run(command, replace(study, audit=command.audit), "audit")
    if session is None:
        return 0
    from normprobe.report.audit_results import Audit

    found = Audit.load(command.run)
    _show(command, session, lambda _: found.to_dict(), lambda _: found.text())
    return 1 if command.strict and found.faults() else 0


def features(argv: list[str] | None = None) -> None:
    """Command line of `normprobe features`."""
    command, study = _parse(FeaturesCommand, argv, "features", "features")
    session = _run(command, replace(study, features=command.features), "features")
    if session is not None:
        from normprobe.report.feature_pages import summary_document, summary_text, write_pages

        pages = write_pages(session.tables)
        _show(
            command,
            session,
            lambda tables: {"pages": str(pages), **summary_document(tables)},
            lambda tables: f"{summary_text(tables)}\npages: {pages}",
        )


def dictionaries(argv: list[str] | None = None) -> None:
    """Command line of `normprobe dictionaries`."""
    command, study = _parse(DictionariesCommand, argv, "dictionaries", "dictionaries")
    session = _run(command, replace(study, dictionaries=command.dictionaries), "dictionaries")
    if session is not None:
        from normprobe.report.dictionary_results import document, text

        _show(command, session, document, text)


def importance(argv: list[str] | None = None) -> None:
    """Command line of `normprobe importance`."""
    command, study = _parse(ImportanceCommand, argv, "importance", "importance")
    session = _run(command, replace(study, importance=command.importance), "importance", "evidence")
    if session is not None:
        from normprobe.report.important_thought import document, text

        _show(command, session, document, text)


def paradigm(argv: list[str] | None = None) -> None:
    """Command line of `normprobe paradigm`."""
    command, study = _parse(ParadigmCommand, argv, "paradigm", "paradigm")
    from normprobe.paradigm_runs import compared_runs

    compared_runs(command.run, command.paradigm)  # what cannot be compared is refused before anything runs
    session = _run(command, replace(study, paradigm=command.paradigm), "paradigm", "evidence")
    if session is not None:
        from normprobe.report.document import run_document
        from normprobe.report.terminal import terminal_text

        _show(command, session, lambda _: run_document(command.run), lambda _: terminal_text(command.run))


def _show(
    command: RunCommand,
    session: Session,
    document: Callable[[Tables], dict[str, Any]],
    text: Callable[[Tables], str],
) -> None:
    """Write the run's report anew, and print what was found and the report's path."""
    report = _write_report(session)
    if command.json:
        found = document(session.tables)
        print_json({"run": str(command.run), "report": None if report is None else str(report), **found})
        return
    print(text(session.tables))
    if report is not None:
        print(f"report: {report}")


def _write_report(session: Session) -> Path | None:
    """Write the run's report anew, where its verdicts are still those of its study."""
    if not session.run.is_current("evidence"):
        return None
    from normprobe.report.html import write_report

    return write_report(session.run.path)


def _run(command: RunCommand, study: Study, *targets: str) -> Session | None:
    """Run what is missing of these stages; with --dry-run, list it and return None."""
    from normprobe.dry_run import stage_plan, stage_table
    from normprobe.pipeline import Pipeline
    from normprobe.runs.directory import Run
    from normprobe.session import Session

    processes = command.processes if isinstance(command, ParallelCommand) else None
    session = Session(study, Run(command.run), processes=processes)
    if command.dry_run:
        if command.json:
            print_json(stage_plan(session, *targets))
        else:
            print(stage_table(session, *targets))
        return None
    with session.run.hold():
        Pipeline(session).run(*targets)
    return session


def _parse(kind: type[_Command], argv: list[str] | None, name: str, section: str) -> tuple[_Command, Study]:
    """The command and its run's study; options over those of --quick, those over the study's.

    Raises NormprobeError for a directory that is not a run.
    """
    from normprobe.runs.directory import Run

    command = parse(kind, argv, name)
    study = read_study(Run.load(command.run).path / "config.yaml")
    if isinstance(command, SizedCommand) and command.quick:
        study = changed(study, {section: QUICK[section]})
    # Only now is it known what an option that was not given is to be.
    return parse(kind, argv, name, replace(command, **{section: getattr(study, section)})), study


if __name__ == "__main__":
    sys.exit(run_main(main))
