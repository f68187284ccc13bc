"""Lines of a thought as parts with roles, and the forms by which a line is read back into such parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from normprobe.problems.testbed.domains import Role

Part = tuple[str, Role]
"""A text and its role. Of a form: a regular expression instead of the text.

`computed`: the result of a step, or what no token before it shows (the letters of a word, the legs of an animal).
`copied`: what stands before. `plan`: what is sought, or supposed to be so. `answer`: what the answer says.
"""
Form = Sequence[Union[Part, "Repeated"]]
"""The parts that a line has, in their order."""

INTEGER = r"-?\d+"
WORD = r"\w+"


@dataclass(frozen=True)
class Repeated:
    """A place in a form where one of several forms stands, any number of times; the first that fits counts."""

    forms: tuple[Form, ...]


@dataclass(frozen=True)
class Solver:
    """How a family of problems is solved in writing.

    think: metadata of a problem, as reasoning-gym gives it → the lines of its thought. lines: the forms that a line can
    have. answer: the form of an answer.
    """

    think: Callable[[Mapping[str, Any]], list[list[Part]]]
    lines: tuple[Form, ...]
    answer: Form


def read_line(forms: Sequence[Form], line: str) -> list[Part] | None:
    """The parts of a line by the first form that covers all of it, None if there is no such form."""
    for form in forms:
        parts = _read(form, line)
        if parts is not None and sum(len(text) for text, _ in parts) == len(line):
            return parts
    return None


def _read(form: Form, text: str) -> list[Part] | None:
    """The parts at the beginning of a text. No part is ever read again in another way."""
    parts: list[Part] = []
    at = 0
    for wanted in form:
        if isinstance(wanted, Repeated):
            found = _repetitions(wanted, text[at:])
        else:
            pattern, role = wanted
            match = re.match(pattern, text[at:])
            if match is None:
                return None
            found: list[Part] = [(match[0], role)] if match[0] else []
        parts.extend(found)
        at += sum(len(part) for part, _ in found)
    return parts


def _repetitions(wanted: Repeated, text: str) -> list[Part]:
    parts: list[Part] = []
    while (found := next(filter(None, (_read(form, text) for form in wanted.forms)), None)) is not None:
        parts += found
        text = text[sum(len(part) for part, _ in found) :]
    return parts
