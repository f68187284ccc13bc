"""The role of every token of a response, read from the forms of its lines alone: right or wrong, a model wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from normprobe.problems.smol_thinker.lines import Form, read_line
from normprobe.problems.testbed.domains import Role

THINK, END_THINK = "<think>", "</think>"
_MARK = re.compile(r"(<think>|</think>|<\|im_end\|>|<\|endoftext\|>|\n)")


def read_roles(tokens: Sequence[str], lines: Sequence[Form], answer: Form) -> list[Role | None]:
    """Roles of the tokens of one response (thought, `</think>`, answer), as the demonstrations have them.

    A token has the role of the part that it begins in. A line that has none of the forms is None throughout, the last
    one, where it was cut off, included; so is an answer that has another form. Marks and ends of lines are `format`.
    """
    of_characters: list[Role | None] = []
    pieces = _MARK.split("".join(tokens))
    forms = lines if _thinks(pieces, lines) else [answer]
    for piece in pieces:
        if _MARK.fullmatch(piece):
            of_characters.extend("format" for _ in piece)
            forms = [answer] if piece == END_THINK else forms
        elif (parts := read_line(forms, piece)) is not None:
            of_characters.extend(role for text, role in parts for _ in text)
        else:
            of_characters.extend(None for _ in piece)
    found: list[Role | None] = []
    at = 0
    for token in tokens:
        found.append(of_characters[at] if token else None)
        at += len(token)
    return found


def _thinks(pieces: Sequence[str], lines: Sequence[Form]) -> bool:
    """Whether a response begins with a thought: it is marked, or its first line is a line of one."""
    first = next((piece for piece in pieces if piece and not _MARK.fullmatch(piece)), "")
    return THINK in pieces or END_THINK in pieces or read_line(lines, first) is not None
