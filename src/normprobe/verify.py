"""Put the paper's claims to the test on one model: `python -m normprobe.verify`.

`normprobe train-saes` and `normprobe profile` run the same study in part, as far as the stage that they are after.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from tyro.conf import arg

from normprobe.config import QUICK, Study
from normprobe.console import parse, print_json, run_main
from normprobe.errors import NormprobeError
from normprobe.settings import optional
from normprobe.study_file import changed, read_study

# Whatever is heavy is imported where it is used: --help must not wait for it.
if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from normprobe.models.model import OpenModel
    from normprobe.report.results import RunResults
    from normprobe.runs.directory import Run


def verify(
    model: str | Path | Mapping[str, Any] | Study | OpenModel | nn.Module,
    out: str | Path = "runs/verify",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    quick: bool = False,
    progress: bool = True,
    **settings: Any,
) -> RunResults:
    """Put the paper's claims to the test on a model, in the run directory `out`, and write its report.

    model: its name, as `normprobe verify --model` takes it; a mapping for more (`{"name": …, "device": "cuda"}`); a
    whole study, without settings; or a model in memory: a Transformers model with its `tokenizer`, a TransformerBridge,
    or what `open_model` gave. settings: sections and values as config.yaml has them, such as
    `saes={"width": 256}, seed=1`; `problems` may be the source alone. quick: sizes too small for verdicts; settings
    override them. What `out` holds already of this model is not run again. A model in memory is known by its weights,
    configuration and tokenizer; what a later command adds to the run (`normprobe audit RUN`) needs its files.

    Raises NormprobeError for everything a user can get wrong, before anything is run where that can be known.
    """
    from normprobe.report.html import write_report
    from normprobe.report.results import load_run

    held = None
    if not isinstance(model, str | Path | Mapping | Study):
        study, held = _study_in_memory(model, tokenizer, quick, settings)
    elif tokenizer is not None:
        raise NormprobeError(
            "expected a tokenizer only with a model in memory, got one with a name; leave it out"
        )
    else:
        study = model if isinstance(model, Study) and not settings else _study(model, quick, settings)
    run_until("evidence", study, Path(out), progress=progress, held=held)
    if not (Path(out) / "report.html").exists():
        write_report(Path(out))
    return load_run(out)


def _study(model: str | Path | Mapping[str, Any] | Study, quick: bool, settings: Mapping[str, Any]) -> Study:
    if isinstance(model, Study):
        raise NormprobeError("expected a study alone, got one with settings; put them into the study")
    sections = {"model": model if isinstance(model, Mapping) else {"name": str(model)}, **settings}
    if isinstance(sections.get("problems"), str | Path):
        sections["problems"] = {"source": str(sections["problems"])}
    return changed(changed(Study(), QUICK if quick else {}), sections)


def _study_in_memory(
    model: OpenModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase | None,
    quick: bool,
    settings: Mapping[str, Any],
) -> tuple[Study, OpenModel]:
    from normprobe.models.in_memory import settings_of
    from normprobe.models.model import OpenModel
    from normprobe.models.open import open_model

    study = _study({}, quick, settings)  # refused before the model is looked at
    thinking = study.thinking.given
    if not isinstance(model, OpenModel):
        opened = open_model(model, tokenizer, thinking=thinking)
    elif tokenizer is not None or thinking is not None:
        raise NormprobeError(
            "expected an open model alone, got one with a tokenizer or a thinking format; give them to open_model"
        )
    else:
        opened = model
    return changed(study, {"model": settings_of(opened)}), opened


def run_until(
    stage: str, study: Study, out: Path, *, progress: bool = True, held: OpenModel | None = None
) -> Run:
    """Run what is missing of a study up to a stage. held: the study's model, if no file has it. Raises NormprobeError
    as `verify`."""
    from normprobe.pipeline import Pipeline, follow
    from normprobe.ranks import Rank
    from normprobe.runs.atomic import make_directory
    from normprobe.runs.directory import Run
    from normprobe.session import Session

    rank, run = Rank.of_environment(), Run(out)
    if rank.total > 1 and (stage != "saes" or study.saes.trainer != "normprobe"):
        raise NormprobeError(
            f"expected one process, got {rank.total} of torchrun, which only train-saes with --sae-trainer normprobe "
            "shares its work among; start it without torchrun"
        )
    pipeline = Pipeline(Session(study, run, progress and rank.leads, rank=rank, held=held))
    # What cannot run is refused before anything is written: settings, and every cell of the problems.
    pipeline.labels()
    pipeline.check_run()
    pipeline.check_model(stage)
    pipeline.session.workload()
    if not rank.leads:
        follow(pipeline)
        return run
    make_directory(out)
    with run.hold():
        pipeline.begin()
        pipeline.run(stage)
    return run


@dataclass(frozen=True)
class StudyCommand:
    """A study and the directory in which it runs."""

    study: Annotated[Study, arg(name="")] = field(default_factory=Study)
    config: Annotated[Path | None, optional(metavar="FILE")] = None
    """settings in YAML, such as the config.yaml of a run to replay; other options override it"""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/verify")
    """run directory, made or continued"""
    quick: bool = False
    """sizes that show that everything works, too small for verdicts"""
    dry_run: bool = False
    """list what would run, why, and about how long it takes"""
    json: bool = False
    """print one JSON document instead of text"""


@dataclass(frozen=True)
class VerifyCommand(StudyCommand):
    """Put the paper's claims to the test on a model and print the evidence."""

    strict: bool = False
    """exit with 1 if any claim is not supported, or a condition has failed"""


@dataclass(frozen=True)
class TrainSaesCommand(StudyCommand):
    """Train the sparse autoencoders of a study: `normprobe verify` as far as the stage saes."""


@dataclass(frozen=True)
class ProfileCommand(StudyCommand):
    """Measure the layer profile of a model: `normprobe verify` as far as the stage profile."""


_Command = TypeVar("_Command", bound=StudyCommand)


def main(argv: list[str] | None = None) -> int:
    """Command line of `python -m normprobe.verify` and `normprobe verify`."""
    command = _parse(VerifyCommand, argv, "verify", "evidence")
    if command is None:
        return 0
    from normprobe.claims.conditions import failures
    from normprobe.report.document import run_document
    from normprobe.report.findings import read_evidence
    from normprobe.report.terminal import terminal_text
    from normprobe.runs.tables import Tables

    verify(command.study, command.out)
    evidence = read_evidence(command.out)
    if command.json:
        print_json(run_document(command.out))
    else:
        print(terminal_text(command.out))
        print(f"report: {command.out / 'report.html'}")
    doubtful = failures(Tables(command.out).conditions) or any(i.verdict != "supported" for i in evidence)
    return 1 if command.strict and doubtful else 0


def train_saes(argv: list[str] | None = None) -> None:
    """Command line of `normprobe train-saes`."""
    from normprobe.ranks import Rank

    if command := _parse(TrainSaesCommand, argv, "train-saes", "saes"):
        run = run_until("saes", command.study, command.out)
        if Rank.of_environment().leads:
            _show_path(command, "dictionaries", run["saes"] / "model")


def profile(argv: list[str] | None = None) -> None:
    """Command line of `normprobe profile`."""
    if command := _parse(ProfileCommand, argv, "profile", "profile"):
        run_until("profile", command.study, command.out)
        _show_path(command, "layer profile", command.out / "layer_profile.json")


def _show_path(command: StudyCommand, name: str, path: Path) -> None:
    if command.json:
        print_json({name.replace(" ", "_"): str(path)})
    else:
        print(f"{name}: {path}")


def _parse(kind: type[_Command], argv: list[str] | None, name: str, stage: str) -> _Command | None:
    """The command, its options over those of --quick, those over the file's, those over the defaults.

    With --dry-run the stages up to `stage` are listed, and it is None.
    """
    given = sys.argv[1:] if argv is None else argv
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--quick", action="store_true")
    early, _ = first.parse_known_args(given)
    study = Study() if early.config is None else read_study(early.config)
    command = parse(kind, given, name, kind(changed(study, QUICK) if early.quick else study))
    if not command.dry_run:
        return command
    from normprobe.dry_run import stage_plan, stage_table
    from normprobe.runs.directory import Run
    from normprobe.session import Session

    session = Session(command.study, Run(command.out))
    if command.json:
        print_json(stage_plan(session, stage))
    else:
        print(stage_table(session, stage))
    return None


class _CallableModule(ModuleType):
    """This module, which can be called like its function: `python -m` and `import normprobe` both call it `verify`."""

    def __call__(self, *args: Any, **kwargs: Any) -> RunResults:
        return verify(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(run_main(main))
