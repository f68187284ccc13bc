"""Problems in four domains, with a chain of thought whose every token has a known role.

Difficulty is the number of dependent steps (1…8). Distractors are definitions, or true facts, that the answer
does not need. A thought plans backwards from the question, then computes forwards. Problems are disjoint
between training and evaluation by construction: the hash of what is asked, without distractors, order or
wording, decides the side.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from normprobe.errors import NormprobeError
from normprobe.problems.testbed.domains import CROWDED, DRAW, Draft, Token
from normprobe.problems.testbed.vocabulary import DOMAINS, MAX_DIFFICULTY

Side = Literal["train", "eval"]

EVALUATION_SHARE = 0.4
"""Share of all questions kept for evaluation: of the 520 one-hop facts this leaves about 208 to ask about."""


@dataclass(frozen=True)
class Problem:
    """One problem: the unit of all statistics.

    `question` and `answer` are text of white-space separated tokens; `thought` is the reference chain of thought,
    without the tokens that the chat template inserts.
    """

    id: str
    domain: str
    difficulty: int
    question: str
    thought: tuple[Token, ...]
    answer: str

    @property
    def thought_text(self) -> str:
        return " ".join(token.text for token in self.thought)


def side_of(draft: Draft) -> Side:
    """The side of the split on which a question lies, from a hash of what it asks (the same on every machine)."""
    digest = hashlib.blake2b("|".join(draft.key).encode(), digest_size=8).digest()
    return "eval" if int.from_bytes(digest, "big") < EVALUATION_SHARE * 2**64 else "train"


def draw_problem(
    rng: random.Random, domain: str, difficulty: int, side: Side, distractors: int | None = None
) -> Problem:
    """Draw problems until one lies on the wanted side. The id is left to the caller's counting.

    distractors: how many; None draws 0…3, as in training.
    """
    while True:
        draft = DRAW[domain](rng, difficulty, distractors)
        if side_of(draft) == side:
            return Problem(
                "", domain, difficulty, " ".join(draft.question), tuple(draft.thought), draft.answer
            )


def make_problems(
    n: int,
    seed: int,
    *,
    split: Side = "eval",
    domains: Sequence[str] = DOMAINS,
    difficulties: Sequence[int] = tuple(range(1, MAX_DIFFICULTY + 1)),
    distractors: int | None = None,
) -> list[Problem]:
    """Draw `n` problems, domains and difficulties in turn, deterministic from `seed`.

    distractors: how many in each problem (up to `CROWDED`, more than training has: there tiny-thinker errs, and an
    intervention can be seen to help or harm); None draws 0…3, as in training.
    Errors: NormprobeError for an unknown domain, a difficulty outside 1…8, too many distractors, or n < 1.
    """
    if n < 1:
        raise NormprobeError(f"expected at least one problem, got n = {n}; ask for n ≥ 1")
    if unknown := [domain for domain in domains if domain not in DOMAINS]:
        raise NormprobeError(
            f"expected domains among {', '.join(DOMAINS)}, got {', '.join(unknown)}; correct the names"
        )
    if outside := [d for d in difficulties if not 1 <= d <= MAX_DIFFICULTY]:
        raise NormprobeError(f"expected difficulties in 1…{MAX_DIFFICULTY}, got {outside}; correct the list")
    if distractors is not None and not 0 <= distractors <= CROWDED:
        raise NormprobeError(
            f"expected between 0 and {CROWDED} distractors, got {distractors}; correct the number"
        )
    rng = random.Random(f"{split} {seed}")
    cells = [(domain, difficulty) for difficulty in difficulties for domain in domains]
    problems = []
    for i in range(n):
        domain, difficulty = cells[i % len(cells)]
        problem = draw_problem(rng, domain, difficulty, split, distractors)
        problems.append(replace(problem, id=f"{split}-{seed}-{i:05d}"))
    return problems
