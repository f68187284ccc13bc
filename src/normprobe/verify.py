"""Put the paper's claims to the test on one model: `python -m normprobe.verify`.

This module alone orders the stages of a run and runs what is missing. A stage whose configuration, and that of
all stages it builds on, is unchanged is not run again; whether that is so is decided before torch is imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from normprobe.claims.registry import evaluate_all
from normprobe.config import QUICK, Settings, add_arguments, fingerprint
from normprobe.console import run_main
from normprobe.layer_profile import LayerProfile
from normprobe.problems import ProblemSource, open_source
from normprobe.report.findings import read_evidence
from normprobe.report.html import write_report
from normprobe.report.table import verdict_table
from normprobe.runs.directory import Run, config_hash, read_config
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel


@dataclass
class Study:
    """One run with its settings; models are opened when a stage first needs them."""

    settings: Settings
    run: Run
    progress: bool = True
    _opened: dict[str, OpenModel] = field(default_factory=dict)

    def model(self, subject: str) -> OpenModel:
        """The model behind a subject: "model", "untrained" or "early"."""
        if subject not in self._opened:
            self._opened[subject] = self._open(subject)
            self.run.identify(**{subject: self._opened[subject].identity.to_dict()})
        return self._opened[subject]

    def _open(self, subject: str) -> OpenModel:
        from normprobe.models.open import open_for

        if subject == "untrained":
            return self.model("model").untrained(self.settings.seed)
        if subject == "model":
            return open_for(self.settings)
        early = self.settings.early_checkpoint
        assert early is not None
        return open_for(replace(self.settings, model=early, revision=None))

    @property
    def subject_names(self) -> tuple[str, ...]:
        return ("model", "untrained", *(["early"] if self.settings.early_checkpoint else []))

    @cached_property
    def subjects(self) -> dict[str, OpenModel]:
        return {subject: self.model(subject) for subject in self.subject_names}

    @property
    def tables(self) -> Tables:
        """The tables of the finished stages, read anew: a stage that runs again replaces its own."""
        return Tables(self.run.path)

    @property
    def max_new_tokens(self) -> int:
        if self.settings.max_new_tokens is not None:
            return self.settings.max_new_tokens
        return self.source.max_new_tokens

    @cached_property
    def source(self) -> ProblemSource:
        return open_source(self.settings.problem_source)

    def stages(self) -> list[tuple[str, dict[str, Any], Callable[[dict[str, Any]], None]]]:
        """(name, configuration, what fills it) in order. A configuration holds the hash of the one it builds on."""
        s = self.settings
        problems = {"source": s.problem_source, "seed": s.seed, "fingerprint": self.source.fingerprint()}
        problems |= self.sizes
        model = {"fingerprint": fingerprint(s.model, s.revision), "dtype": s.dtype, "device": s.device}
        early = s.early_checkpoint and fingerprint(s.early_checkpoint, None)
        responses = {
            "after": config_hash(problems),
            "model": model,
            "max_new_tokens": self.max_new_tokens,
            "seed": s.seed,
        }
        traces = {"after": config_hash(responses), "subjects": list(self.subject_names), "early": early}
        saes = {"after": config_hash(traces), "given": s.saes, "layers": s.layer_list, "seed": s.seed}
        saes |= {"width": s.sae_width, "samples": s.sae_samples}
        reductions = {"after": config_hash(saes), "seed": s.seed}
        experiments = {"after": config_hash(traces), "seed": s.seed}
        evidence = {"after": [config_hash(reductions), config_hash(experiments)], "seed": s.seed}
        return [
            ("problems", problems, self._problems),
            ("responses", responses, self._responses),
            ("traces", traces, self._traces),
            ("saes", saes, self._saes),
            ("reductions", reductions, self._reductions),
            ("experiments", experiments, self._experiments),
            ("evidence", evidence, self._evidence),
        ]

    def _problems(self, config: dict[str, Any]) -> None:
        table = self.source.load(self.sizes, self.settings.seed)
        with self.run.stage("problems", config) as folder:
            FILES["problems"].write(folder, table)

    @property
    def sizes(self) -> dict[str, int]:
        s = self.settings
        return {"sae": s.n_sae, "select": s.n_select, "measure": s.n_measure}

    def _responses(self, config: dict[str, Any]) -> None:
        from normprobe.engines.hf import HfEngine
        from normprobe.tracing.stages import fill_responses

        with self.run.stage("responses", config) as folder:
            fill_responses(
                folder,
                HfEngine(self.model("model")),
                self.tables.problems,
                max_new_tokens=self.max_new_tokens,
                seed=self.settings.seed,
                scorer=self.source.score,
                progress=self.progress,
            )

    def _traces(self, config: dict[str, Any]) -> None:
        from normprobe.tracing.stages import fill_traces

        with ExitStack() as eager, self.run.stage("traces", config) as folder:
            for opened in self.subjects.values():
                eager.enter_context(opened.returning_attentions())
            tables = self.tables
            fill_traces(
                folder,
                self.subjects,
                tables.responses,
                tables.problems,
                roles=self.source.roles,
                progress=self.progress,
            )

    def _saes(self, config: dict[str, Any]) -> None:
        from normprobe.saes.stages import fill_saes
        from normprobe.saes.training import SaeSettings

        s = self.settings
        with self.run.stage("saes", config) as folder:
            fill_saes(
                folder,
                self.subjects,
                self.tables.responses,
                layers=s.layer_list,
                given=s.saes,
                settings=SaeSettings(width=s.sae_width, n_samples=s.sae_samples),
                seed=s.seed,
                progress=self.progress,
            )

    def _reductions(self, config: dict[str, Any]) -> None:
        from normprobe.saes.stages import fill_reductions

        with self.run.stage("reductions", config) as folder:
            fill_reductions(
                folder, self.subjects, self.tables.responses, self.run["saes"], progress=self.progress
            )

    def _experiments(self, config: dict[str, Any]) -> None:
        from normprobe.engines.hf import HfEngine
        from normprobe.experiments.suppression import fill_experiments

        tables = self.tables
        identity = self.model("model").identity.to_dict()
        profile = LayerProfile.measure(tables.tokens, tables.signals("model")["norm"], identity)
        profile.save(self.run.path / FILES["profile"].path)
        with self.run.stage("experiments", config) as folder:
            fill_experiments(
                folder,
                HfEngine(self.model("model")),
                profile,
                tables.problems,
                tables.tokens,
                max_new_tokens=self.max_new_tokens,
                seed=self.settings.seed,
                scorer=self.source.score,
                progress=self.progress,
            )

    def _evidence(self, config: dict[str, Any]) -> None:
        with self.run.stage("evidence", config) as folder:
            evaluate_all(self.tables, self.settings.seed, folder)


def verify(settings: Settings, out: Path, given: Mapping[str, Any], *, progress: bool = True) -> Path:
    """Run what is missing of a study in `out`; returns the path of its report.

    Raises NormprobeError for everything a user can get wrong, before anything is run where that can be known.
    """
    settings.problem_source  # noqa: B018  the one setting that can be missing
    run = Run.open(out, given, resolved=dataclasses.asdict(settings))
    study = Study(settings, run, progress)
    stages = study.stages()
    for number, (name, config, fill) in enumerate(stages, start=1):
        if run.stage_complete(name, config):
            continue
        start = time.monotonic()
        if progress:
            print(f"[{number}/{len(stages)}] {name} …", file=sys.stderr, flush=True)
        fill(config)
        (out / "report.html").unlink(missing_ok=True)
        if progress:
            print(
                f"[{number}/{len(stages)}] {name}: {time.monotonic() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    report = out / "report.html"
    return report if report.exists() else write_report(out)


def main(argv: list[str] | None = None) -> int:
    """Command line of `python -m normprobe.verify` and `normprobe verify`."""
    parser = argparse.ArgumentParser(
        prog="normprobe verify", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    add_arguments(parser)
    parser.add_argument(
        "--config", type=Path, help="config.yaml of a run to replay; other arguments override it"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/verify"), help="run directory, made or continued"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few problems: shows that everything works, too small for verdicts",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if any claim is not supported")
    arguments = parser.parse_args(argv)
    keys = {f.name for f in dataclasses.fields(Settings)}
    given = read_config(arguments.config, keys) if arguments.config else {}
    given |= QUICK if arguments.quick else {}
    given |= {key: value for key, value in vars(arguments).items() if key in keys and value is not None}
    report = verify(Settings.of(given), arguments.out, given)
    evidence = read_evidence(arguments.out)
    print(verdict_table(evidence))
    print(f"report: {report}")
    return 1 if arguments.strict and any(e.verdict != "supported" for e in evidence) else 0


class _CallableModule(ModuleType):
    """This module, which can be called like its function: `python -m` and `import normprobe` both call it `verify`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        return verify(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(run_main(main))
