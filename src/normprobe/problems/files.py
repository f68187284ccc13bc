"""The problems of a run: the testbed's, or a user's file, split three ways."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.testbed.problems import make_problems

SPLITS = ("sae", "select", "measure")
COLUMNS = ("problem_id", "domain", "difficulty", "question", "answer", "split")
FEWEST = 8
"""Problems a split needs at least: fewer give no interval worth printing."""


def bundled_problem_set(sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
    """Held-out testbed problems, `sizes[split]` for each split, balanced over domains and difficulties within each.

    Columns as in problems/problems.parquet. The splits share no question.
    """
    rows = []
    for i, split in enumerate(SPLITS):
        seen = {row["question"] for row in rows}
        drawn = make_problems(2 * sizes[split], seed=1000 * (seed + 1) + i)
        fresh = [problem for problem in drawn if problem.question not in seen][: sizes[split]]
        rows += [
            {
                "problem_id": problem.id,
                "domain": problem.domain,
                "difficulty": problem.difficulty,
                "question": problem.question,
                "answer": problem.answer,
                "split": split,
            }
            for problem in fresh
        ]
    return _checked(pd.DataFrame(rows, columns=list(COLUMNS)), "the testbed")


def read_problem_set(path: Path, seed: int) -> pd.DataFrame:
    """A user's problems from .parquet or .jsonl: `question` is required, the other columns are filled in if absent.

    Without `split`, a hash of seed and problem_id puts half into "sae" and a quarter each into "select" and "measure".
    Raises NormprobeError for another file type, an unreadable file, missing questions, duplicate ids or empty splits.
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
        raise NormprobeError(
            f"expected a 'question' in every row of {path}, got {_questions(table)}; add the column"
        )
    if "problem_id" not in table:
        table["problem_id"] = [f"{path.stem}-{i:05d}" for i in range(len(table))]
    table["problem_id"] = table["problem_id"].astype(str)
    for name in ("domain", "difficulty", "answer"):
        table[name] = table.get(name)
    table["answer"] = table["answer"].map(lambda answer: None if pd.isna(answer) else str(answer))
    if "split" not in table:
        table["split"] = [_split(f"{seed}/{problem_id}") for problem_id in table["problem_id"]]
    return _checked(table[list(COLUMNS)], str(path))


def _split(key: str) -> str:
    return ("sae", "sae", "select", "measure")[hashlib.blake2b(key.encode(), digest_size=1).digest()[0] % 4]


def _questions(table: pd.DataFrame) -> str:
    return (
        f"{int(table['question'].notna().sum())} in {len(table)} rows"
        if "question" in table
        else "no such column"
    )


def _checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    if twice := table.loc[table["problem_id"].duplicated(), "problem_id"].tolist():
        raise NormprobeError(f"expected unique problem ids in {source}, got {twice[0]!r} twice; rename them")
    if unknown := set(table["split"]) - set(SPLITS):
        raise NormprobeError(
            f"expected splits {', '.join(SPLITS)} in {source}, got {sorted(unknown)}; correct them"
        )
    for split in SPLITS:
        n = int((table["split"] == split).sum())
        if n < FEWEST:
            raise NormprobeError(
                f"expected at least {FEWEST} problems in split '{split}' of {source}, got {n}; give more problems"
            )
    return table.reset_index(drop=True)
