"""The regimes of the evaluation: problems hard enough that a method can be seen to help."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from normprobe.problems.testbed.domains import CROWDED
from normprobe.problems.testbed.problems import make_problems

TUNE_SEED, TEST_SEED = 101, 202
"""Seeds of the problems of the two splits; both are of the testbed's held-out side, as all measured problems are."""


@dataclass(frozen=True)
class Regime:
    """A kind of problem and a way of decoding. temperature: 0 is greedy."""

    domain: str
    difficulties: tuple[int, ...]
    distractors: int
    temperature: float

    @property
    def name(self) -> str:
        how = "greedy" if self.temperature == 0 else f"T = {self.temperature:g}"
        return f"{self.domain} {self.difficulties[0]}–{self.difficulties[-1]}, crowded, {how}"

    def problems(self, n: int, split: str) -> pd.DataFrame:
        """`n` problems of the split `tune` or `test`: problem_id, domain, difficulty, question, answer.

        No question of `tune` is in `test`.
        """
        drawn = make_problems(
            n,
            TEST_SEED,
            domains=(self.domain,),
            difficulties=self.difficulties,
            distractors=self.distractors,
        )
        if split == "tune":
            held_out = {problem.question for problem in drawn}
            more = make_problems(
                n,
                TUNE_SEED,
                domains=(self.domain,),
                difficulties=self.difficulties,
                distractors=self.distractors,
            )
            drawn = [problem for problem in more if problem.question not in held_out]
        return pd.DataFrame(
            {
                "problem_id": [problem.id for problem in drawn],
                "domain": [problem.domain for problem in drawn],
                "difficulty": [problem.difficulty for problem in drawn],
                "question": [problem.question for problem in drawn],
                "answer": [problem.answer for problem in drawn],
            }
        )


GREEDY = Regime("arithmetic", (7, 8), CROWDED, 0.0)
"""Where the verdict is taken: tiny-thinker is right in about three of four."""
REGIMES = (
    GREEDY,
    Regime("arithmetic", (7, 8), CROWDED, 1.0),
    Regime("arithmetic", (5, 6), CROWDED, 0.0),
    Regime("boolean", (7, 8), CROWDED, 1.0),
    Regime("recall", (7, 8), CROWDED, 1.0),
)
"""Where a sweep looks for settings that help: the same sampled, easier problems, another domain, and knowledge, where
the paper reports that the methods do harm."""
