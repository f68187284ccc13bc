"""Runs of models that RL and SFT made of one base: whether they can be compared, and their curves side by side.

The claim `paradigm` reads the table that is written here; what cannot be compared is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from normprobe.claims.conditions import failures, measure_conditions
from normprobe.claims.measure.measured_tokens import MeasuredTokens
from normprobe.claims.measure.readers import readable
from normprobe.claims.measure.sharpness import MEANS
from normprobe.claims.paradigm import ANSWER, RESPONSE, RL, RL_AGAIN, SFT, SFT_AGAIN
from normprobe.config import ParadigmSettings, SaeSettings
from normprobe.errors import NormprobeError
from normprobe.runs.directory import Run, read_label
from normprobe.runs.layout import FILES, SUBJECTS
from normprobe.runs.tables import Tables

_NAMES = {"sft": SFT, "rl_again": RL_AGAIN, "sft_again": SFT_AGAIN}
MODES = ("think", "no_think")
_OF_EACH = {"given", "of", "memory_gb"}
"""Settings of dictionaries that may differ: which are given is each model's own, and memory is the machine's."""


def compared_runs(run: Path, settings: ParadigmSettings) -> dict[str, Tables]:
    """The tables of this run (`RL`) and of those that it is compared with, by paradigm.

    Raises NormprobeError for a run that is not finished, is named twice, has other problems, another base or another
    number of layers, dictionaries of other layers or training, or does not think when it is asked to.
    """
    if settings.sft is None:
        raise NormprobeError(
            "expected --sft RUN, a run of a model that SFT made of the same base, got none; make it with normprobe "
            "verify, on the same problems and with --early BASE"
        )
    paths = {RL: run} | {
        _NAMES[name]: Path(path) for name, path in asdict(settings).items() if path is not None
    }
    if len({path.resolve() for path in paths.values()}) < len(paths):
        raise NormprobeError(
            f"expected runs of different directories, got {', '.join(map(str, paths.values()))}; name each once"
        )
    tables = {name: Tables(_finished(path)) for name, path in paths.items()}
    for name, other in tables.items():
        if name != RL:
            _comparable(tables[RL], other)
    return tables


def _finished(path: Path) -> Path:
    """The directory, if the stages that are read are finished in it."""
    run = Run.load(path)
    for stage in ParadigmSettings.READS:
        run[stage]
    return path


def _comparable(run: Tables, other: Tables) -> None:
    measured = [of.problems[of.problems["split"] == "measure"] for of in (run, other)]
    questions = [set(zip(of["problem_id"], of["question"], strict=True)) for of in measured]
    if questions[0] != questions[1]:
        raise NormprobeError(
            f"expected the measured problems of {run.path} in {other.path}, got {len(questions[0] & questions[1])} of "
            f"{len(questions[0])} and {len(questions[1] - questions[0])} others; give both runs the same problems, "
            "sizes and seed"
        )
    _same("layers", run, other, lambda of: _identity(of, "model", "n_layers"))
    for of in (run, other):
        if not of.has("signals/early"):
            raise NormprobeError(
                f"expected the common base as early checkpoint in {of.path}, got none; verify it with --early BASE"
            )
    _same("base (--early)", run, other, lambda of: _identity(of, "early", "weights"))
    _same("layers with dictionaries", run, other, lambda of: of.layers("model"))
    for name in sorted({field.name for field in fields(SaeSettings)} - _OF_EACH):
        _same(f"saes.{name}", run, other, partial(_training, name))
    if failed := failures(measure_conditions(other.responses)):
        raise NormprobeError(
            f"expected a model that thinks when it is asked to in {other.path}, but {'; '.join(failed.values())}; "
            "see normprobe doctor"
        )


def _same(what: str, run: Tables, other: Tables, read: Callable[[Tables], object]) -> None:
    ours, theirs = read(run), read(other)
    if ours != theirs:
        raise NormprobeError(
            f"expected the {what} of {run.path} in {other.path}, got {theirs} instead of {ours}; verify one of them "
            "again as the other"
        )


def _identity(of: Tables, subject: str, name: str) -> object:
    """What a run's manifest tells of one of its networks."""
    return Run(of.path).manifest()["identities"].get(subject, {}).get(name)


def _training(name: str, of: Tables) -> object:
    """A setting that a run's dictionaries were made with."""
    return read_label(Run(of.path)["saes"]).settings.get("saes", {}).get(name)


def fill_paradigm(folder: Path, tables: Mapping[str, Tables]) -> None:
    """Write curves.parquet into `folder`, from the tables of `compared_runs`. Raises NotMeasurable for too few
    problems."""
    parts = [run_curves(of).assign(paradigm=name) for name, of in tables.items()]
    FILES["paradigm"].write(folder, pd.concat(parts, ignore_index=True))


def run_curves(tables: Tables) -> pd.DataFrame:
    """The rows of one run in paradigm/curves.parquet, without its paradigm."""
    measured = MeasuredTokens(tables, MODES)
    scopes = {
        RESPONSE: (measured.where("think"), measured.where("no_think")),
        ANSWER: measured.identical_answers("think"),
    }
    thinking = tables.responses[tables.responses["mode"] == "think"]
    right = thinking.groupby("problem_id")["correct"].agg(lambda of: of.astype("Float64").mean())
    parts = [
        _means(measured, subject, masks).assign(subject=subject, scope=scope)
        for subject in SUBJECTS
        for scope, masks in scopes.items()
    ]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(correct=rows["problem_id"].map(right).astype("float64"))


def _means(
    measured: MeasuredTokens,
    subject: str,
    masks: tuple[Bool[np.ndarray, " token"], Bool[np.ndarray, " token"]],
) -> pd.DataFrame:
    """A row per problem and layer: what a subject shows, reading the tokens of the two masks."""
    tables = measured.tables
    norm = tables.signals(subject)["norm"]
    z = np.full_like(norm, np.nan)
    if subject == "model" or readable(tables, subject):
        z[tables.layers(subject)] = tables.z(subject)["z_reasoning"]
    problems = pd.Index(measured.problem_ids, name="problem_id")
    values = [measured.means(of, mask) for of in (norm, z) for mask in masks]
    keys = pd.MultiIndex.from_product([problems, range(len(norm))], names=["problem_id", "layer"])
    return keys.to_frame(index=False).assign(
        **{name: of.ravel() for name, of in zip(MEANS, values, strict=True)}
    )
