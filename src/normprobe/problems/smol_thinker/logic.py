"""Thoughts for islands of people who always tell the truth or always lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from normprobe.problems.smol_thinker.lines import WORD, Form, Part, Repeated, Solver

ATOMS = ("telling-truth", "lying")
_WORDS = re.compile(r"\)| ?\(| ?\w+")


def _holds(statement: Sequence[Any], honest: Sequence[bool]) -> bool:
    """Whether a statement of reasoning-gym's knights_knaves is true, honest[i]: whether person i tells the truth."""
    kind, *inner = statement
    if kind in ATOMS:
        return honest[inner[0]] == (kind == "telling-truth")
    values = [_holds(part, honest) for part in inner]
    match kind:
        case "not":
            return not values[0]
        case "and":
            return all(values)
        case "or":
            return any(values)
        case "->":
            return not values[0] or values[1]
        case _:
            return values[0] == values[1]


def _inserted(statement: Sequence[Any], honest: Sequence[bool]) -> str:
    """The statement as the question words it, with `true` or `false` for what it says of one person."""
    kind, *inner = statement
    if kind in ATOMS or (kind == "not" and inner[0][0] in ATOMS):
        return "true" if _holds(statement, honest) else "false"
    texts = [_inserted(part, honest) for part in inner]
    texts = [text if text in ("true", "false") else f"({text})" for text in texts]
    match kind:
        case "not":
            return f"not {texts[0]}"
        case "->":
            return f"if {texts[0]} then {texts[1]}"
        case "<=>":
            return f"{texts[0]} equals {texts[1]}"
        case _:
            return f" {kind} ".join(texts)


def _evaluated(statement: Sequence[Any], honest: Sequence[bool]) -> list[Part]:
    """` if true then false is false`; of a statement about one person ` true` alone."""
    text = " " + _inserted(statement, honest)
    parts: list[Part] = [
        (word, "computed" if word.strip() in ("true", "false") else "copied") for word in _WORDS.findall(text)
    ]
    if len(parts) > 1:
        parts.extend([(" is", "format"), (" true" if _holds(statement, honest) else " false", "computed")])
    return parts


def _try(metadata: Mapping[str, Any], honest: Sequence[bool]) -> list[Part]:
    """The line that tries who is honest, up to the first statement that does not fit."""
    terms = metadata["knight_knave_terms"]
    line: list[Part] = [("Try", "connective")]
    for name, value in zip(metadata["names"], honest, strict=True):
        kind = terms["knight" if value else "knave"]
        line.extend([(f" {name}", "copied"), (f" {kind}", "plan")])
    line.append((":", "format"))
    for statement, value in zip(metadata["statements"], honest, strict=True):
        fits = _holds(statement, honest) == value
        line.extend(_evaluated(statement, honest))
        line.extend([(" fits" if fits else " fails", "computed"), (";", "format")])
        if not fits:
            break
    return line[:-1]


def _knights_knaves(metadata: Mapping[str, Any]) -> list[list[Part]]:
    """One case after the other, until every statement is true if and only if its speaker is honest."""
    lines: list[list[Part]] = []
    for honest in product((True, False), repeat=len(metadata["names"])):
        lines.append(_try(metadata, honest))
        if honest == metadata["solution"]:
            break
    return lines


_SUPPOSED: Form = [(f" {WORD}", "copied"), (f" {WORD}", "plan")]
_ONE: Form = [(f" ?{WORD}", "copied"), (" is", "format"), (" an?", "format"), (f" {WORD}", "answer")]
KNIGHTS_KNAVES = Solver(
    _knights_knaves,
    (
        [
            ("Try", "connective"),
            Repeated((_SUPPOSED,)),
            (":", "format"),
            Repeated(
                (
                    [(r" ?(?:true|false)", "computed")],
                    [(r" (?:fits|fails)", "computed")],
                    [(r"\)| ?\(| ?(?:if|then|and|or|not|equals)\b", "copied")],
                    [(" is|;", "format")],
                )
            ),
        ],
    ),
    [
        *_ONE,
        Repeated(([(",(?: and)?", "format"), *_ONE],)),
        (r"\.?", "format"),
    ],
)
