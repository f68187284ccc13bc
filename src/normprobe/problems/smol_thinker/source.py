"""smol-thinker's problems as a problem source: held out from its training, every token with a role that can be read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.smol_thinker.families import FAMILIES, LONGEST, NAME, on_side
from normprobe.problems.source import COLUMNS, Regime, Roles
from normprobe.problems.testbed.domains import Role

TUNE_SEED, TEST_SEED = 101, 202
"""Seeds of the regimes' problems."""
DOMAINS = {name: family.domain for name, family in FAMILIES.items()}


@dataclass(frozen=True)
class SmolThinkerProblems:
    """Held-out problems of all families and levels in turn."""

    name: str = NAME
    max_new_tokens: int = LONGEST

    @property
    def roles(self) -> Roles:
        return _roles

    def load(self, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
        """`sizes[split]` problems for each split, no question twice; an id begins with the name of the family.

        Raises NormprobeError for sizes below `FEWEST`, and for more problems than there are.
        """
        table = on_side("eval").load(sizes, seed)
        return table.assign(domain=table["domain"].map(DOMAINS))

    def score(self, answer: str, gold: str) -> bool:
        """Whether the text gives the answer by the rule of the problem's task."""
        return on_side("eval").score(answer, gold)

    def fingerprint(self) -> str:
        """The version of reasoning-gym, and the families' settings."""
        gym = on_side("eval")
        return f"{gym.fingerprint()}, {gym.tasks}"

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """Problems at the last levels, where there is room to see help or harm; `problems` plays no part."""
        return (
            Regime("last levels, greedy", 0.0, _last_levels),
            Regime("last levels, T = 1", 1.0, _last_levels),
        )


def open_named(rest: str) -> SmolThinkerProblems:
    """The source. Raises NormprobeError for anything behind its name, and without reasoning-gym."""
    if rest:
        raise NormprobeError(f"expected '{NAME}' alone, got '{NAME}:{rest}'; leave the rest out")
    on_side("eval").check()
    return SmolThinkerProblems()


def _roles(tokens: Sequence[str]) -> list[Role | None]:
    """Roles of the tokens of a response, by the family that reads most of them."""
    readings = [family.roles(tokens) for family in FAMILIES.values()]
    return max(readings, key=lambda roles: sum(role is not None for role in roles))


def _last_levels(n: int, split: Literal["tune", "test"]) -> pd.DataFrame:
    """`n` problems at the families' last levels in turn; those to tune on are no problems to test on."""
    gym, used = on_side("eval"), set[str]()
    numbers = [gym.tasks.index(family.task(len(family.levels))) for family in FAMILIES.values()]
    for seed in (TEST_SEED, TUNE_SEED):
        drawn = {number: gym.draw(number, seed, used) for number in numbers}
        rows = [next(drawn[number])[0] for number in itertools.islice(itertools.cycle(numbers), n)]
        if (seed == TEST_SEED) == (split == "test"):
            break
    table = pd.DataFrame(rows)[list(COLUMNS[:-1])]
    return table.assign(domain=table["domain"].map(DOMAINS))
