"""Train the sparse autoencoders of a study: `normprobe train-saes sae_training/STUDY.yaml --out DIR`.

A study is one model with its layers, problems and settings, in a YAML file. The program answers the problems in think
and no_think, trains a dictionary per layer, and leaves a run directory; `normprobe verify --saes DIR/saes/model`
reads with them. Where the study names published dictionaries, they are fetched and checked against the model instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.problems import open_source
from normprobe.problems.source import FEWEST, SPLITS
from normprobe.runs.directory import Run, config_hash, read_config
from normprobe.runs.files import atomic_write, read_table

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel
    from normprobe.saes.training import SaeSettings

TESTBED = "testbed"


@dataclass(frozen=True)
class Study:
    """The keys of a study's YAML file; `SaeSettings` says more on the last ones.

    problems: "testbed", or a file as `normprobe verify --problems` takes it (its split "sae" is used). n_problems:
    how many to draw from the testbed. responses_at_once: generated in one batch. layers: all if absent. release:
    published dictionaries (`RELEASE:ID` with {layer}) to use instead of training. memory_gb: of sampled states.
    """

    model: str
    revision: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    offline: bool = False
    trust_remote_code: bool = False
    problems: str | None = None
    n_problems: int = 640
    max_new_tokens: int = 160
    responses_at_once: int = 128
    layers: list[int] | None = None
    release: str | None = None
    width: int = 512
    k: int = 16
    n_samples: int = 80_000
    batch_size: int = 256
    memory_gb: int | float = 0.5
    seed: int = 0

    @property
    def settings(self) -> SaeSettings:
        from normprobe.saes.training import SaeSettings

        memory = int(self.memory_gb * 2**30)
        return SaeSettings(self.width, self.k, self.n_samples, self.batch_size, memory)


def read_study(path: Path, **overrides: Any) -> Study:
    """The study in a YAML file, with `overrides` for keys given otherwise.

    Raises NormprobeError if it is unreadable, has an unknown key, lacks the model, or a value is of another type.
    """
    types = {field.name: field.type for field in dataclasses.fields(Study)}
    values = read_config(path, types) | overrides
    if "model" not in values:
        raise NormprobeError(f"expected a model in {path}, got none; add a line 'model: NAME'")
    for key, value in values.items():
        if not _is(value, str(types[key])):
            raise NormprobeError(
                f"expected {key} of type {types[key]} in {path}, got {value!r}; correct the line"
            )
        if str(types[key]) in ("int", "int | float") and key != "seed" and value <= 0:
            raise NormprobeError(f"expected {key} above 0 in {path}, got {value}; correct the line")
    return Study(**values)


def train_study(study: Study, out: Path, given: Mapping[str, Any], *, progress: bool = True) -> Path:
    """Run what is missing of a study in the run directory `out`; returns the folder of the model's dictionaries.

    Raises NormprobeError as the stages do, or if there are no problems to train on.
    """
    from normprobe.models.open import open_model
    from normprobe.saes.stages import fill_saes

    if study.release is None and study.problems is None:
        raise NormprobeError(
            f"expected problems for the model {study.model}, got none; give --problems FILE, or '{TESTBED}'"
        )
    run = Run.open(out, given, resolved=dataclasses.asdict(study))
    opened = open_model(
        study.model,
        revision=study.revision,
        dtype=study.dtype,
        device=study.device,
        offline=study.offline,
        trust_remote_code=study.trust_remote_code,
    )
    run.identify(model=opened.identity.to_dict())
    config: dict[str, Any] = {"study": dataclasses.asdict(study), "model": opened.identity.weights}
    if study.release is None:
        config["after"] = _stage_paired_responses(run, opened, study, progress)
    if not run.stage_complete("saes", config):
        with run.stage("saes", config) as folder:
            fill_saes(
                folder,
                {"model": opened},
                None if study.release else read_table(run["responses"] / "responses.parquet"),
                layers=study.layers,
                given=study.release,
                settings=study.settings,
                seed=study.seed,
                progress=progress,
            )
    return run["saes"] / "model"


def _stage_paired_responses(run: Run, opened: OpenModel, study: Study, progress: bool) -> str:
    """Fill problems/ and responses/ with the split "sae" alone; returns the hash of the latter's configuration."""
    from normprobe.engines.hf import HfEngine
    from normprobe.saes.activations import PAIRED, SPLIT
    from normprobe.tracing.stages import fill_responses

    table = _problems(study)
    problems = {"ids": table["problem_id"].tolist(), "questions": table["question"].tolist()}
    if not run.stage_complete("problems", problems):
        with (
            run.stage("problems", problems) as folder,
            atomic_write(folder / "problems.parquet") as unfinished,
        ):
            table[table["split"] == SPLIT].to_parquet(unfinished, index=False)
    responses = {
        "after": config_hash(problems),
        "model": opened.identity.to_dict(),
        "max_new_tokens": study.max_new_tokens,
        "seed": study.seed,
    }
    if not run.stage_complete("responses", responses):
        with run.stage("responses", responses) as folder:
            fill_responses(
                folder,
                HfEngine(opened),
                read_table(run["problems"] / "problems.parquet"),
                modes=PAIRED,
                max_new_tokens=study.max_new_tokens,
                batch_size=study.responses_at_once,
                seed=study.seed,
                progress=progress,
            )
    return config_hash(responses)


def _problems(study: Study) -> pd.DataFrame:
    assert study.problems is not None
    # The other splits as small as may be: they are for the run that reads with these dictionaries.
    sizes = {split: study.n_problems if split == "sae" else FEWEST for split in SPLITS}
    return open_source(study.problems).load(sizes, study.seed)


def _is(value: object, kind: str) -> bool:
    """Whether a YAML value is of the type that the annotation `kind` names."""
    if value is None:
        return kind.endswith("| None")
    match kind.removesuffix(" | None"):
        case "str":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "int | float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return isinstance(value, list) and all(_is(item, "int") for item in value)


def main(argv: list[str] | None = None) -> int:
    """Command line of `normprobe train-saes` and `sae_training/train.py`."""
    parser = argparse.ArgumentParser(
        prog="normprobe train-saes", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    parser.add_argument(
        "study", type=Path, help="a study's YAML file, such as sae_training/tiny_thinker.yaml"
    )
    parser.add_argument("--out", type=Path, help="run directory, made or continued (runs/saes-STUDY)")
    parser.add_argument("--problems", metavar="FILE", help="problems as .parquet or .jsonl, or 'testbed'")
    parser.add_argument("--device", help="cpu or cuda, instead of the study's")
    arguments = parser.parse_args(argv)
    overrides = {
        key: value for key in ("problems", "device") if (value := getattr(arguments, key)) is not None
    }
    study = read_study(arguments.study, **overrides)
    given = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    folder = train_study(study, arguments.out or Path("runs") / f"saes-{arguments.study.stem}", given)
    print(f"dictionaries: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
