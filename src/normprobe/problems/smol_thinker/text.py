"""Thoughts for spelling backward and counting letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normprobe.problems.smol_thinker.lines import INTEGER, WORD, Part, Repeated, Solver

LETTER = r"[^\W\d_]"


def _reversal(word: str) -> list[Part]:
    return [
        ("Plan:", "format"),
        (" spell", "plan"),
        (f" {word}", "plan"),
        (",", "format"),
        (" then", "connective"),
        (" reverse", "plan"),
    ]


def _spell_backward(metadata: Mapping[str, Any]) -> list[list[Part]]:
    """The letters with their numbers, `1s2u3n`, and back from the last, `3n2u1s`.

    A token of a word does not show its letters: to spell them is computed, to write them again is copied.
    """
    word = metadata["word"]
    forward: list[Part] = [("First", "connective"), (" ", "format")]
    back: list[Part] = [("Back", "connective"), (" ", "format")]
    for number, letter in enumerate(word, start=1):
        forward += [(str(number), "format"), (letter, "computed")]
    for number, letter in reversed(list(enumerate(word, start=1))):
        back += [(str(number), "format"), (letter, "copied")]
    return [_reversal(word), forward, back]


SPELL_BACKWARD = Solver(
    _spell_backward,
    (
        _reversal(WORD),
        [("First", "connective"), (" ", "format"), Repeated(([(r"\d+", "format"), (LETTER, "computed")],))],
        [("Back", "connective"), (" ", "format"), Repeated(([(r"\d+", "format"), (LETTER, "copied")],))],
    ),
    [(WORD, "answer")],
)


def _spelled(word: str, letters: str) -> list[Part]:
    return [(word, "copied"), (":", "format"), (letters, "computed")]


def _counted(letter: str) -> list[Part]:
    return [("Plan:", "format"), (" count", "plan"), (f" {letter}", "plan")]


def _letter_counting(metadata: Mapping[str, Any]) -> list[list[Part]]:
    """Every word letter by letter, with the count behind each letter that counts: `hundred: h u n d1 r e d2`."""
    lines, count = [_counted(metadata["target_letter"])], 0
    for word in metadata["span"]:
        letters = ""
        for letter in word:
            hit = letter.lower() == metadata["target_letter"]
            count += hit
            letters += f" {letter}{count}" if hit else f" {letter}"
        lines.append(_spelled(word, letters))
    return lines


LETTER_COUNTING = Solver(
    _letter_counting,
    (_counted(WORD), _spelled(rf"(?!Plan){WORD}", r"(?: \w\d*)+")),
    [(INTEGER, "answer")],
)
