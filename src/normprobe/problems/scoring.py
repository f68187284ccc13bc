r"""Is a free-form answer right? For every problem whose source has no scorer of its own.

A gold answer is one of four things: the letter of a choice, a number, mathematics, or a text. What a response gives as
its answer is read accordingly (`normprobe.problems.final_answer`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from normprobe.problems import mathematics
from normprobe.problems.exact_number import Quantity, read_quantity
from normprobe.problems.final_answer import FinalAnswer, final_answer, last_box, plain
from normprobe.runs.untrusted import json_value

_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox|mathbf|textit|emph)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"[\s$*]*\(?([A-Z])(?:\)|\.|:)?[\s$*]*")
_BEGINS = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)\b)?[\s*_:`\"$(\[{]*([A-Z])(?:$|(?=[)\].:,;*_`\"$}]|\s*\n|\s+[-–]\s+[A-Za-z]{2}|\s+(?:because|since|as)\s))(?!\s*[=+*/^_])",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"\b(?:option|choice|choose|select|pick|is|be|so|thus|therefore|hence)\b[\s*_:`\"$(\[]{1,4}([A-Z])(?=$|[)\].,;:!*_`\"$\n]|\s+(?:because|since|as|is)\b)"
)
_BRACKETED = re.compile(r"\(([A-Z])\)")
_SEVERAL = re.compile(r"[\s*(]*[A-Z][)*]*(?:\s*[,&/]\s*|\s+(?:or|and)\s+)(?:(?:or|and)\s+)?[*(]*[A-HJ-Z]\b")
_YES_OR_NO = {"yes", "no", "true", "false"}


def matches(answer: str, gold: str) -> bool:
    r"""Whether `answer`, the text after the thought, gives `gold`.

    What counts is the last `\boxed{…}` if there is one, then a line `#### …`, then what follows "the answer is"; else,
    for a gold number, the last number in the text. A letter is compared as a letter, a number exactly (`1,234`, `50%`,
    `3/4`, `18 dollars`), mathematics by math-verify, a text without case, articles, markdown and a closing full stop.
    A gold answer may be `#### 42`, `\boxed{42}` or a JSON list of accepted texts. An empty answer is wrong, and nothing
    matches a gold answer that cannot be judged.
    """
    found = final_answer(plain(answer))
    if not found.pieces:
        return False
    return any(_gives(answer, found, accepted) for accepted in read_gold(gold))


@dataclass(frozen=True)
class Gold:
    """One accepted answer: what it is, its text, and for a number its value."""

    kind: Literal["letter", "number", "mathematics", "text"]
    text: str
    quantity: Quantity | None = None


@lru_cache(maxsize=4096)
def read_gold(gold: str) -> tuple[Gold, ...]:
    """The accepted answers that a data set's gold answer stands for; none where it cannot be judged."""
    read = [_read(text) for text in _accepted(gold)]
    return () if None in read else tuple(filter(None, read))


def _accepted(gold: str) -> list[str]:
    """The members of a JSON list of texts; else the gold answer alone."""
    if gold.lstrip().startswith('["'):
        try:
            members = json_value(gold)
        except ValueError:
            return [gold]
        if all(isinstance(member, str) for member in members):
            return members
    return [gold]


def _read(gold: str) -> Gold | None:
    text = plain(gold).strip()
    if "####" in text:
        text = text.rpartition("####")[2].strip()
    if (box := last_box(text)) is not None:
        text = box.strip()
    if re.fullmatch(r"\$[^$]+\$|\\\(.+\\\)|\\\[.+\\\]", text, re.DOTALL):
        text = (
            text.strip("$")
            .removeprefix("\\(")
            .removesuffix("\\)")
            .removeprefix("\\[")
            .removesuffix("\\]")
            .strip()
        )
    if re.fullmatch(r"[\s()\[\]{}$]*", _words(text)):
        return None
    if letter := _LETTER.fullmatch(_TEXT.sub(r"\1", text)):
        return Gold("letter", letter[1])
    if quantity := read_quantity(text):
        return Gold("number", text, quantity)
    return Gold("mathematics" if mathematics.is_mathematics(text) else "text", text)


def _gives(answer: str, found: FinalAnswer, gold: Gold) -> bool:
    if gold.kind == "letter":
        return _letter(answer, found) == gold.text
    if gold.kind == "number":
        return _gives_number(found, gold)
    if gold.kind == "mathematics":
        candidates = dict.fromkeys([*found.pieces, *filter(None, [found.number])])
        return any(mathematics.is_mathematics(c) and mathematics.equal(c, gold.text) for c in candidates)
    wanted = _words(gold.text)
    if wanted in _YES_OR_NO and re.match(rf"\W*{wanted}\b\s*(?:[,.;:!*\n–-]|$)", answer, re.IGNORECASE):
        return True
    return any(_words(piece) == wanted for piece in found.pieces)


def _gives_number(found: FinalAnswer, gold: Gold) -> bool:
    number = found.number
    if number is None or gold.quantity is None:
        return False
    for side in re.split(r"\\approx|\\simeq", number):
        quantity = read_quantity(side)
        if quantity is not None and quantity.gives(gold.quantity):
            return True
        if quantity is None and mathematics.is_mathematics(side) and mathematics.equal(side, gold.text):
            return True
    return False


def _letter(answer: str, found: FinalAnswer) -> str | None:
    """The letter that is chosen; None where none is, or several are."""
    if found.marked:
        piece = _TEXT.sub(r"\1", found.pieces[-1]).strip()
        return _first_letter(piece)
    lines = [line for line in plain(answer).splitlines() if line.strip()]
    leading = {letter for line in lines if (letter := _first_letter(line)) is not None}
    if len(leading) == 1 and (_first_letter(lines[-1]) or _first_letter(lines[0])):
        return leading.pop()
    if chosen := _CHOSEN.findall(plain(answer)):
        return chosen[-1]
    bracketed = set(_BRACKETED.findall(answer))
    return bracketed.pop() if len(bracketed) == 1 else None


def _first_letter(text: str) -> str | None:
    """The letter that a text begins with, as in "(B)", "B. Paris" and "option B"; a small letter only alone."""
    if alone := re.fullmatch(r"\W*([A-Za-z])\W*", text):
        return alone[1].upper() if not re.search(r"[-+=<>^/]", text) else None
    if _SEVERAL.match(text):
        return None
    begins = _BEGINS.match(text.strip())
    return begins[1] if begins and begins[1].isupper() else None


def _words(text: str) -> str:
    """A text without what does not matter: case, space, markdown, quotes, a leading article, a closing full stop."""
    text = _TEXT.sub(r"\1", text).casefold()
    text = re.sub(r"[*`_\"“”$]|(?<!\w)['‘’]|['‘’](?!\w)", "", text) if re.search(r"\w", text) else text
    text = re.sub(r"\s+", " ", text).strip().rstrip(".!?,;: ")
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", text)
