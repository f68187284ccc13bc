"""A user's problems, in a .parquet or .jsonl file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.scoring import matches
from normprobe.problems.source import COLUMNS, Regime, check_problems
from normprobe.runs.atomic import refusing_disk_errors


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
        with refusing_disk_errors(self.path), self.path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """The run's own problems, greedy and at temperature 1: `select` to tune on, `measure` to test on.

        Raises NormprobeError if a split has no problem with a gold answer.
        """
        judged = problems[problems["answer"].notna()]
        for split in _SPLIT_OF.values():
            if not (judged["split"] == split).any():
                raise NormprobeError(
                    f"expected gold answers in split '{split}' of {self.name}, got none; "
                    "add the column 'answer' to evaluate methods"
                )
        chosen = partial(_first, judged)
        return (Regime("measure, greedy", 0.0, chosen), Regime("measure, T = 1", 1.0, chosen))


_SPLIT_OF = {"tune": "select", "test": "measure"}


def _first(problems: pd.DataFrame, n: int, split: Literal["tune", "test"]) -> pd.DataFrame:
    chosen = problems[problems["split"] == _SPLIT_OF[split]]
    return chosen.drop(columns="split").head(n).reset_index(drop=True)


def open_named(name: str) -> ProblemFile:
    """The problems of the file `name`. Raises NormprobeError if it is absent."""
    if not Path(name).is_file():
        raise NormprobeError(f"expected a file of problems, got {name} (no such file); check the path")
    return ProblemFile(Path(name))


def read_problem_set(path: Path, seed: int) -> pd.DataFrame:
    """A user's problems from .parquet or .jsonl: `question` is required, the other columns are filled in if absent.

    Without `split`, a hash of seed and problem_id puts half into "sae" and a quarter each into "select" and "measure".
    Raises NormprobeError for another file type, an unreadable file, missing questions, duplicate ids or small splits.
    """
    readers = {".parquet": pd.read_parquet, ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=False)}
    if path.suffix not in readers:
        raise NormprobeError(f"expected problems in a .parquet or .jsonl file, got {path}; convert it")
    try:
        table = readers[path.suffix](path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise NormprobeError(
            f"expected readable problems in {path}, got an error ({reason}); check the file"
        ) from error
    if "question" not in table or table["question"].isna().any() or not len(table):
        n = int(table["question"].notna().sum()) if "question" in table else None
        got = "no such column" if n is None else f"{n} in {len(table)} rows"
        raise NormprobeError(f"expected a 'question' in every row of {path}, got {got}; add the column")
    if "problem_id" not in table:
        table["problem_id"] = [f"{path.stem}-{i:05d}" for i in range(len(table))]
    table["problem_id"] = table["problem_id"].astype(str)
    for name in ("domain", "difficulty", "answer"):
        table[name] = table.get(name)
    table["answer"] = table["answer"].map(lambda answer: None if pd.isna(answer) else str(answer))
    if "split" not in table:
        table["split"] = [_split(f"{seed}/{problem_id}") for problem_id in table["problem_id"]]
    return check_problems(table[list(COLUMNS)], str(path))


def _split(key: str) -> str:
    return ("sae", "sae", "select", "measure")[hashlib.blake2b(key.encode(), digest_size=1).digest()[0] % 4]
