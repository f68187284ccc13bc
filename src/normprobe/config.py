"""The arguments of a study, their defaults, and what tells its models apart without opening them."""

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from normprobe.errors import NormprobeError
from normprobe.problems.testbed import bundled
from normprobe.runs.directory import Run

TESTBED = "testbed"
MODEL_FILES = (".safetensors", ".json", ".jinja", ".txt", ".model")


@dataclass(frozen=True)
class Settings:
    """The arguments of a run, defaults filled in; config.yaml holds the same keys."""

    model: str = "tiny-thinker"
    revision: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    offline: bool = False
    trust_remote_code: bool = False
    early: str | None = None
    layers: str | None = None
    saes: str | None = None
    sae_width: int = 512
    sae_samples: int = 80_000
    problems: str | None = None
    n_sae: int = 512
    n_select: int = 160
    n_measure: int = 256
    max_new_tokens: int | None = None
    seed: int = 0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Settings":
        """The settings of some arguments. Raises NormprobeError for a value of another kind than its field."""
        kinds = get_type_hints(cls)
        for name, value in given.items():
            if not isinstance(value, kinds[name]):
                raise NormprobeError(
                    f"expected {name} as {kinds[name]}, got {value!r}; correct the configuration"
                )
        return cls(**given)

    @property
    def is_bundled(self) -> bool:
        return self.model in bundled.NAMES

    @property
    def early_checkpoint(self) -> str | None:
        """The early checkpoint that serves as a control: the given one, or the bundled one of tiny-thinker."""
        return self.early or ("tiny-thinker:early" if self.model == "tiny-thinker" else None)

    @property
    def problem_source(self) -> str:
        """Where problems come from. Raises NormprobeError if nothing says it."""
        if self.problems is None and not self.is_bundled:
            raise NormprobeError(
                f"expected --problems FILE for the model {self.model}, got none; "
                f"give .parquet or .jsonl with a 'question' column, or '{TESTBED}' for a model trained on the testbed"
            )
        return self.problems or TESTBED

    @property
    def layer_list(self) -> list[int] | None:
        """The layers that dictionaries read, from `20-23,27`; None for all. Raises NormprobeError for another form."""
        if self.layers is None:
            return None
        chosen: list[int] = []
        for part in str(self.layers).split(","):
            first, _, last = part.strip().partition("-")
            if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
                raise NormprobeError(f"expected --layers as in 20-23,27, got {self.layers!r}; correct it")
            chosen += range(int(first), int(last or first) + 1)
        return sorted(set(chosen))


def run_settings(run: Run) -> Settings:
    """The settings of a finished run. Raises NormprobeError if it is not one of `normprobe verify`."""
    try:
        return Settings.of(run.manifest()["arguments"]["resolved"])
    except (TypeError, KeyError) as error:
        raise NormprobeError(
            f"expected a run of `normprobe verify` in {run.path}, got another; name a finished verification"
        ) from error


QUICK = {"n_sae": 96, "n_select": 64, "n_measure": 64, "sae_width": 256, "sae_samples": 20_000}
"""`--quick`: a run that shows that everything works, in about two minutes. Too small for verdicts."""


def fingerprint(name: str, revision: str | None) -> str:
    """What tells one model from another without opening it: a hash of the files of a directory, or the hub's name."""
    directory = bundled.path(name) if name in bundled.NAMES else Path(name).expanduser()
    if not directory.is_dir():
        return f"{name}@{revision}"
    digest = hashlib.sha256(name.partition(":")[2].encode() if name in bundled.NAMES else b"")
    for file in sorted(directory.iterdir()):
        if file.suffix in MODEL_FILES:
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per field of `Settings`; None where the user gave nothing."""
    parser.add_argument("--model", help="tiny-thinker (the default), a directory, or a hub id")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--dtype", help="float32 (the default), bfloat16 or float16")
    parser.add_argument("--device", help="cpu (the default) or cuda")
    parser.add_argument("--offline", action="store_true", default=None, help="never ask a hub")
    parser.add_argument(
        "--trust-remote-code", action="store_true", default=None, help="run code that comes with a model"
    )
    parser.add_argument("--early", metavar="MODEL", help="an early checkpoint of the model, as a control")
    parser.add_argument(
        "--layers", metavar="LIST", help="layers that dictionaries read, as in 20-23,27 (all)"
    )
    parser.add_argument(
        "--saes", metavar="DIR|RELEASE", help="dictionaries to read with instead of training them"
    )
    parser.add_argument(
        "--problems",
        metavar="FILE",
        help="problems as .parquet or .jsonl with a 'question' column, or 'testbed'",
    )
    parser.add_argument(
        "--max-new-tokens", type=int, help="limit of a response (160 on the testbed, else 2048)"
    )
    parser.add_argument("--n-sae", type=int, help="testbed problems to train the dictionaries on")
    parser.add_argument("--n-select", type=int, help="testbed problems to select features and thresholds on")
    parser.add_argument("--n-measure", type=int, help="testbed problems to measure on")
    parser.add_argument("--sae-width", type=int, help="atoms of each dictionary (512)")
    parser.add_argument(
        "--sae-samples", type=int, help="activations shown to each dictionary in training (80000)"
    )
    parser.add_argument("--seed", type=int, help="seed of everything random (0)")
