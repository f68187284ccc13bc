"""The testbed as a problem source: problems drawn from a seed, judged exactly, every token with a known role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.source import COLUMNS, SPLITS, Regime, Roles, check_problems
from normprobe.problems.testbed.domains import CROWDED
from normprobe.problems.testbed.problems import Problem, make_problems
from normprobe.problems.testbed.roles import roles
from normprobe.problems.testbed.scoring import correct

FINGERPRINT = "testbed 1"
"""To be raised whenever a seed yields other problems than before."""
TUNE_SEED, TEST_SEED = 101, 202
"""Seeds of the regimes' problems; both are of the testbed's held-out side, as all measured problems are."""
REGIME_TOKENS = 220
"""Limit of a response to the crowded problems of the regimes, which are longer than a study's."""


@dataclass(frozen=True)
class BundledProblems:
    """Held-out problems of the testbed, balanced over domains and difficulties within each split."""

    name: str = "testbed"
    max_new_tokens: int = 160

    @property
    def roles(self) -> Roles:
        return roles

    def load(self, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
        """`sizes[split]` problems for each split. Raises NormprobeError for sizes below `FEWEST`."""
        tables: list[pd.DataFrame] = []
        used: set[str] = set()
        for i, split in enumerate(SPLITS):
            drawn = make_problems(2 * sizes[split], seed=1000 * (seed + 1) + i)
            fresh = [problem for problem in drawn if problem.question not in used][: sizes[split]]
            used |= {problem.question for problem in fresh}
            tables.append(problem_table(fresh).assign(split=split))
        return check_problems(pd.concat(tables, ignore_index=True), "the testbed")

    def score(self, answer: str, gold: str) -> bool:
        """Whether the text is exactly `answer : GOLD`."""
        return correct(answer, gold)

    def fingerprint(self) -> str:
        """The version of the generator."""
        return FINGERPRINT

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """Crowded problems of their own, hard enough that a method can be seen to help; `problems` plays no part.

        In the first, tiny-thinker is right in about three of four. The others are where a sweep looks for settings that
        help: the same sampled, easier problems, another domain, and knowledge, where the paper (arXiv 2606.06188)
        reports that the methods do harm.
        """
        return (
            _regime("arithmetic", (7, 8), 0.0),
            _regime("arithmetic", (7, 8), 1.0),
            _regime("arithmetic", (5, 6), 0.0),
            _regime("boolean", (7, 8), 1.0),
            _regime("recall", (7, 8), 1.0),
        )


def open_named(rest: str) -> BundledProblems:
    """The testbed. Raises NormprobeError for anything behind its name."""
    if rest:
        raise NormprobeError(f"expected 'testbed' alone, got 'testbed:{rest}'; leave the rest out")
    return BundledProblems()


def problem_table(problems: Sequence[Problem]) -> pd.DataFrame:
    """One row per problem; columns as in problems.parquet, without the split."""
    rows = [(p.id, p.domain, p.difficulty, p.question, p.answer) for p in problems]
    return pd.DataFrame(rows, columns=list(COLUMNS[:-1]))


def _regime(domain: str, difficulties: tuple[int, ...], temperature: float) -> Regime:
    how = "greedy" if temperature == 0 else f"T = {temperature:g}"
    name = f"{domain} {difficulties[0]}–{difficulties[-1]}, crowded, {how}"
    return Regime(name, temperature, partial(_crowded, domain, difficulties), REGIME_TOKENS)


def _crowded(
    domain: str, difficulties: tuple[int, ...], n: int, split: Literal["tune", "test"]
) -> pd.DataFrame:
    """`n` problems; fewer to tune on, where no question of the test problems is left in."""
    draw = partial(make_problems, n, domains=(domain,), difficulties=difficulties, distractors=CROWDED)
    drawn = draw(TEST_SEED)
    if split == "tune":
        held_out = {problem.question for problem in drawn}
        drawn = [problem for problem in draw(TUNE_SEED) if problem.question not in held_out]
    return problem_table(drawn)
