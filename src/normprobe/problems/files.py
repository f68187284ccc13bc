"""A user's problems, in a .jsonl, .json, .csv or .parquet file, compressed or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.file_rows import format_of, read_rows
from normprobe.problems.problem_rows import problem_table
from normprobe.problems.scoring import matches
from normprobe.problems.source import Regime, own_problems
from normprobe.runs.atomic import sha256_of


@dataclass(frozen=True)
class ProblemFile:
    """The problems of a file; answers are judged by `matches`, and no token has a role."""

    path: Path
    max_new_tokens: int = 2048

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def roles(self) -> None:
        return None

    def load(self, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
        """All problems of the file, whatever the sizes; see `read_problem_set`."""
        return read_problem_set(self.path, seed)

    def score(self, answer: str, gold: str) -> bool:
        """Whether the text gives the gold answer, as `matches` has it."""
        return matches(answer, gold)

    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """The run's own problems, greedy and at temperature 1: `select` to tune on, `measure` to test on.

        Raises NormprobeError if a split has no problem with a gold answer.
        """
        return own_problems(problems, self.name)


def open_named(name: str) -> ProblemFile:
    """The problems of the file `name`. Raises NormprobeError if it is absent."""
    if not Path(name).is_file():
        raise NormprobeError(f"expected a file of problems, got {name} (no such file); check the path")
    return ProblemFile(Path(name))


def read_problem_set(path: Path, seed: int) -> pd.DataFrame:
    """A user's problems from a file; see `normprobe.problems.problem_rows.problem_table` for the columns it may have.

    Raises NormprobeError for another file type, an unreadable file, and as `problem_table` does.
    """
    stem = path.name.removesuffix("".join(format_of(path.name) or ()))
    return problem_table(read_rows(path), str(path), stem, seed)
