"""A problem source: where problems come from and how an answer to them is judged.

A new source is one module of this package that defines `open_named`, such as `problems/gsm8k.py` or
`problems/gsm8k/source.py`; `--problems gsm8k` and `--problems gsm8k:hard` then find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast, runtime_checkable

from normprobe.errors import NormprobeError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("sae", "select", "measure")
"""SAE training, selection of features and thresholds, measurement; they share no question."""
COLUMNS = ("problem_id", "domain", "difficulty", "question", "answer", "split")
FEWEST = 8
"""Problems a split needs at least: fewer give no interval worth printing."""

Scorer = Callable[[str, str], bool]
"""(text of the answer, gold answer) → is it right?"""
Roles = Callable[[Sequence[str]], Sequence[str | None]]
"""Tokens of a response, without its prompt → the role of each, None where there is none."""


@dataclass(frozen=True)
class Regime:
    """A kind of problems and a way of decoding, under which methods are compared.

    temperature: 0 is greedy. problems: (n, "tune" or "test") → up to n problems, with the columns `COLUMNS` but for
    `split`; the two share no question. max_new_tokens: limit of a response; None takes that of the run's responses.
    """

    name: str
    temperature: float
    problems: Callable[[int, Literal["tune", "test"]], pd.DataFrame]
    max_new_tokens: int | None = None


@runtime_checkable
class ProblemSource(Protocol):
    """Where the problems of a study come from."""

    @property
    def name(self) -> str:
        """What `open_source` finds it by."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Default limit of a response, in tokens."""
        ...

    @property
    def roles(self) -> Roles | None:
        """The function that tells the roles of tokens, None if nobody knows them."""
        ...

    def load(self, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
        """The problems of a study: one row each, columns `COLUMNS`.

        sizes: how many problems per split, for sources that can choose. Raises NormprobeError for unusable problems.
        """
        ...

    def score(self, answer: str, gold: str) -> bool:
        """Whether `answer`, the text after the thought, gives `gold`."""
        ...

    def fingerprint(self) -> str:
        """A text that changes when the problems do, found without loading them."""
        ...

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """What `normprobe evaluate` tries methods on; verdicts are taken in the first regime, which is greedy.

        problems: those of the run, as `load` gave them. Raises NormprobeError if none has a gold answer.
        """
        ...


_KINDS = {
    "hf": "hub",
    "lm-eval": "harness_task",
    "reasoning-gym": "reasoning_gym",
    "smol-thinker": "smol_thinker",
}
"""Names of sources that are no names of modules."""


def open_source(name: str) -> ProblemSource:
    """The problem source of a name: a file or folder, "testbed", "smol-thinker", or one such as "reasoning-gym:TASK".

    A name alone that is none of these may be a task of lm-eval's, as "gsm8k" is.

    Raises NormprobeError for a name that is none of these, or a file that is absent.
    """
    from normprobe.problems.file_rows import format_of

    kind, _, rest = name.partition(":")
    if format_of(name) is not None and kind not in _KINDS:
        kind, rest = "files", name
    elif name and kind not in _KINDS and Path(name).is_dir():
        kind, rest = "hub", name
    kind = _KINDS.get(kind, kind)
    if kind.isidentifier():
        for module in (f"{__package__}.{kind}.source", f"{__package__}.{kind}"):
            if _exists(module) and hasattr(found := import_module(module), "open_named"):
                return cast(ProblemSource, found.open_named(rest))
    from normprobe.problems import harness_task

    if harness_task.has_task(name):
        return harness_task.open_named(name)
    raise NormprobeError(
        "expected problems as a .jsonl, .json, .csv or .parquet file, 'testbed', 'smol-thinker', 'reasoning-gym:TASK', "
        f"'lm-eval:TASK' or 'hf:NAME', got {name!r}; correct the name, or convert the file"
    )


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # no such parent, or one that is no package
        return False


def own_problems(problems: pd.DataFrame, source: str) -> Sequence[Regime]:
    """The regimes of a run's own problems, greedy and at temperature 1: `select` to tune on, `measure` to test on.

    Raises NormprobeError if a split has no problem with a gold answer.
    """
    judged = problems[problems["answer"].notna()]
    for split in _SPLIT_OF.values():
        if not (judged["split"] == split).any():
            raise NormprobeError(
                f"expected gold answers in split '{split}' of {source}, got none; "
                "add the column 'answer' to evaluate methods"
            )
    chosen = partial(_first, judged)
    return (Regime("measure, greedy", 0.0, chosen), Regime("measure, T = 1", 1.0, chosen))


_SPLIT_OF = {"tune": "select", "test": "measure"}


def _first(problems: pd.DataFrame, n: int, split: Literal["tune", "test"]) -> pd.DataFrame:
    chosen = problems[problems["split"] == _SPLIT_OF[split]]
    return chosen.drop(columns="split").head(n).reset_index(drop=True)


def check_problems(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The table, its rows numbered from 0. Raises NormprobeError for repeated ids, unknown splits, or small ones."""
    if repeated := table.loc[table["problem_id"].duplicated(), "problem_id"].tolist():
        raise NormprobeError(
            f"expected unique problem ids in {source}, got {repeated[0]!r} twice; rename them"
        )
    if unknown := set(table["split"]) - set(SPLITS):
        raise NormprobeError(
            f"expected splits {', '.join(SPLITS)} in {source}, got {sorted(unknown)}; correct them"
        )
    for split in SPLITS:
        n = int((table["split"] == split).sum())
        if n < FEWEST:
            raise NormprobeError(
                f"expected at least {FEWEST} problems in split '{split}' of {source}, got {n} of {len(table)} in all; "
                f"give more problems (some {5 * FEWEST}, which are split at random, or a column 'split')"
            )
    return table.reset_index(drop=True)
