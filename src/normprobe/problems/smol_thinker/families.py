"""The families of problems that smol-thinker learns to think about: tasks of reasoning-gym at levels of difficulty."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from normprobe.errors import NormprobeError
from normprobe.problems.reasoning_gym import GymProblems, GymTask, full_marks, open_task
from normprobe.problems.smol_thinker.arithmetic import CHAIN_SUM, LEG_COUNTING
from normprobe.problems.smol_thinker.lines import Part, Solver, read_line
from normprobe.problems.smol_thinker.logic import KNIGHTS_KNAVES
from normprobe.problems.smol_thinker.roles import read_roles
from normprobe.problems.smol_thinker.text import LETTER_COUNTING, SPELL_BACKWARD
from normprobe.problems.testbed.domains import Role
from normprobe.problems.testbed.problems import EVALUATION_SHARE, Side

NAME = "smol-thinker"
LONGEST = 320
"""Limit of a response, in tokens of SmolLM2: the longest demonstration has fewer."""


@dataclass(frozen=True)
class FamilyProblem:
    """A problem of a family; answer: as reasoning-gym writes it; gold: what a problem source scores by."""

    id: str
    family: str
    level: int
    question: str
    answer: str
    metadata: Mapping[str, Any]
    gold: str


@dataclass(frozen=True)
class Demonstration:
    """A thought and an answer in parts, each with its role; a token has the role of the part that it begins in."""

    thought: list[Part]
    answer: list[Part]


@dataclass(frozen=True)
class Family:
    """A task of reasoning-gym; levels: its settings at the difficulties 1, 2, …"""

    name: str
    domain: str
    levels: Sequence[Mapping[str, Any]]
    solver: Solver

    def problems(self, level: int, n: int, seed: int, side: Side = "train") -> list[FamilyProblem]:
        """`n` problems with different questions, deterministic from level, seed and side.

        The sides share no question. Raises NormprobeError for a level that the family lacks, for more problems than it
        has, and without reasoning-gym.
        """
        if not 1 <= level <= len(self.levels):
            raise NormprobeError(
                f"expected a level of {self.name} from 1 to {len(self.levels)}, got {level}; correct it"
            )
        number = TASKS.index(self.task(level))
        drawn = itertools.islice(on_side(side).draw(number, seed, set()), n)
        return [
            FamilyProblem(
                id=row["problem_id"],
                family=self.name,
                level=level,
                question=row["question"],
                answer=entry["answer"],
                metadata=entry["metadata"],
                gold=row["answer"],
            )
            for row, entry in drawn
        ]

    def task(self, level: int) -> GymTask:
        """The family at a level, as reasoning-gym has it."""
        return GymTask(self.name, tuple(self.levels[level - 1].items()), level)

    def demonstrate(self, problem: FamilyProblem) -> Demonstration:
        """The solver's thought, its lines ending in newlines but for the last, and the answer."""
        thought, *others = self.solver.think(problem.metadata)
        for line in others:
            thought.extend([("\n", "format"), *line])
        answer = read_line([self.solver.answer], problem.answer)
        assert answer is not None, problem
        return Demonstration(thought, answer)

    def roles(self, tokens: Sequence[str]) -> list[Role | None]:
        """Roles of the tokens of a response to a problem of this family; see `read_roles`."""
        return read_roles(tokens, self.solver.lines, self.solver.answer)


def score(problem: FamilyProblem, text: str) -> bool:
    """Whether a text, what stands after the thought, gives the answer by the rule of the problem's task."""
    entry = {"question": problem.question, "answer": problem.answer, "metadata": problem.metadata}
    return full_marks(open_task(FAMILIES[problem.family].task(problem.level), 0), entry, text)


def on_side(side: Side) -> GymProblems:
    """The problems of all families and levels on one side; a hash of a question decides its side."""
    return GymProblems(NAME, TASKS, LONGEST, partial(_lies_on, side))


def _lies_on(side: Side, question: str) -> bool:
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") < EVALUATION_SHARE * 2**64) == (side == "eval")


def _each(name: str, values: Sequence[int], **others: Any) -> list[dict[str, Any]]:
    """Settings of levels in which a quantity has one value after the other."""
    return [{f"min_{name}": value, f"max_{name}": value} | others for value in values]


_ALL = (
    Family("chain_sum", "arithmetic", _each("terms", (2, 3, 4, 5), min_digits=2, max_digits=2), CHAIN_SUM),
    Family("spell_backward", "text", _each("word_len", (4, 5, 6, 8)), SPELL_BACKWARD),
    Family(
        "knights_knaves",
        "logic",
        [
            {"n_people": people, "depth_constraint": depth, "width_constraint": 2}
            for people, depth in ((2, 2), (2, 3), (3, 2))
        ],
        KNIGHTS_KNAVES,
    ),
    Family("leg_counting", "arithmetic", _each("animals", (2, 3, 4, 5), max_instances=15), LEG_COUNTING),
    Family("letter_counting", "text", _each("words", (2, 4, 6, 8)), LETTER_COUNTING),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}
"""By name."""
TASKS = tuple(family.task(level) for level in range(1, 5) for family in _ALL if level <= len(family.levels))
"""Every family at every level: all families at level 1 first."""
