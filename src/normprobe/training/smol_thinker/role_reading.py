"""How much of what a model wrote the parser of its family reads, and whether it reads the solver's lines rightly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from normprobe.problems.smol_thinker.families import FAMILIES, FamilyProblem
from normprobe.problems.smol_thinker.lines import Part
from normprobe.problems.testbed.domains import Role

_MARK = re.compile(r"(<think>|</think>|<\|im_end\|>|\n)")


class RoleReading(NamedTuple):
    """Counts of tokens: all of a response, those with a role, those in lines that the solver writes too, and those of
    them whose role is the solver's."""

    tokens: int
    read: int
    shared: int
    agreeing: int


def read(problem: FamilyProblem, tokens: Sequence[str]) -> RoleReading:
    """Compare the roles of a response's tokens with those of the solver's own lines for the same problem."""
    family = FAMILIES[problem.family]
    found = family.roles(tokens)
    shown = family.demonstrate(problem)
    lines = {"".join(text for text, _ in line): line for line in (*_lines(shown.thought), shown.answer)}
    wanted: list[Role | None] = []
    for piece in _MARK.split("".join(tokens)):
        line = lines.get(piece)
        wanted.extend([None] * len(piece) if line is None else (role for text, role in line for _ in text))
    shared = agreeing = at = 0
    for token, role in zip(tokens, found, strict=True):
        if token and wanted[at] is not None:
            shared += 1
            agreeing += role == wanted[at]
        at += len(token)
    return RoleReading(len(tokens), sum(role is not None for role in found), shared, agreeing)


def _lines(thought: Iterable[Part]) -> list[list[Part]]:
    lines: list[list[Part]] = [[]]
    for part in thought:
        if part[0] == "\n":
            lines.append([])
        else:
            lines[-1].append(part)
    return lines
