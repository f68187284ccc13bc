r"""Are two mathematical answers equal? Judged by math-verify, within bounds that keep every comparison short.

math-verify's own time limit is a signal, which only a main thread may set, so none is used. What could take long is
refused by its size before it is parsed: long texts, deep brackets, towers of powers, large factorials, sums, integrals.
"""

from __future__ import annotations

import cmath
import logging
import math
import re
from functools import lru_cache
from typing import Any

LONGEST, DEEPEST = 200, 7
"""Characters, and brackets within brackets. Parsing takes about 0.2 s a bracket when cold."""
LARGEST_POWER, LARGEST_SOLVED, MOST_OPERATORS = 1000, 6, 40
# Of both signs, so that √(x²) is not x; no simple relation holds between them.
_POINTS = tuple(
    tuple(sign(j) * (0.61803 + 0.7320508 * i + 0.2236 * j) for j in range(26))
    for i, sign in enumerate((lambda j: 1, lambda j: -1, lambda j: (-1) ** j, lambda j: -((-1) ** j)))
)

_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{3,}")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf|textrm|operatorname)\s*\{([^{}]*)\}")
_KNOWN = {
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "exp",
    "sqrt",
    "inf",
    "and",
    "pmatrix",
    "bmatrix",
    "begin",
    "end",
}
_LONG = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|binom|dbinom|tbinom|frac\{d|partial|nabla|det)(?![a-z])|!\s*!|\\ddot|\\hat\{"
)
_FACTORIAL = re.compile(r"(?:(\d+)|[^\s\d=<>])\s*!(?!=)")
_RAISED = re.compile(r"(?:\^|\*\*)\s*(\{|\(|.)")


def is_mathematics(text: str) -> bool:
    """Whether a text is read as mathematics: it has no words, but a digit, command or operator, or is one letter."""
    text = _TEXT.sub(r" \1 ", text)
    words = {word.casefold() for word in _WORD.findall(_COMMAND.sub(" ", text))} - _KNOWN
    if words or len(text) > LONGEST or re.search(r"\d\s+\d", text):
        return False
    return (
        bool(re.search(r"\d|\\[A-Za-z]+|[-+*/^=<>|]", text))
        or re.fullmatch(r"[\s$]*[A-Za-z][\s$]*", text) is not None
    )


def equal(answer: str, gold: str) -> bool:
    """Whether both are the same mathematics; of an approximation either side counts. What is too large is not equal."""
    sides = [answer, *re.split(r"\\approx|\\simeq", answer)]
    return any(_equal(_tidy(side), _tidy(gold)) for side in dict.fromkeys(sides) if side.strip())


def _equal(answer: str, gold: str) -> bool:
    if _squeezed(answer) == _squeezed(gold):
        return bool(_squeezed(gold))
    mine, theirs = _parsed(answer), _parsed(gold)
    if mine is None or theirs is None:
        return False
    from math_verify import verify
    from sympy import Expr

    if isinstance(mine, Expr) and isinstance(theirs, Expr):
        return _same_value(mine, theirs)
    # Sets, relations and matrices; here math-verify may simplify and solve.
    return _is_low(answer) and _is_low(gold) and verify(theirs, mine, timeout_seconds=None)


def _same_value(a: Any, b: Any) -> bool:
    """Whether two expressions have one value: exactly for rational numbers, else numerically (symbols at four points).

    Simplifying their difference would prove the same, and may take hours.
    """
    from sympy import Float

    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        x, y = a.doit(), b.doit()
        if x.is_Rational and y.is_Rational:
            return bool(x == y)
    tolerance = 1e-6 if a.has(Float) or b.has(Float) else 1e-18
    points = [dict(zip(symbols, point, strict=False)) for point in _POINTS] if symbols else [{}]
    compared = 0
    for point in points:
        try:
            x, y = (complex(side.evalf(30, subs=point)) for side in (a, b))
            difference = abs(complex((a - b).evalf(30, subs=point)))
        except (TypeError, ValueError, OverflowError, ArithmeticError, AttributeError):
            continue
        if not (cmath.isfinite(x) and cmath.isfinite(y)):
            continue
        if difference > tolerance * max(abs(x), abs(y)):
            return False
        compared += 1
    return compared >= min(2, len(points))


def _tidy(text: str) -> str:
    text = text.replace("**", "^").replace(r"\$", "").strip().strip("$").strip()
    text = re.sub(r"\\[()\[\]]", "", text).removesuffix(".").rstrip()
    return re.sub(r"(?<=\d),(?=\s*\d)", ", ", text) if re.search(r"\d\s*,\s*\d{1,2}(?!\d)", text) else text


def _squeezed(text: str) -> str:
    text = re.sub(r"\\(?:left|right|displaystyle|,|!|;|:)(?![A-Za-z])|\s|\$", "", text)
    return re.sub(r"\\[dtc]frac", r"\\frac", text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Any:
    """The text as math-verify reads it; None where it cannot, or where the text is too large."""
    if not _is_small(text):
        return None
    from math_verify import LatexExtractionConfig, parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that no time limit is set
    found = parse(
        f"${text}$",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=0,
    )
    return found[0] if found else None


def _is_small(text: str) -> bool:
    """Whether parsing and comparing the text takes seconds at most."""
    if not text.strip() or len(text) > LONGEST or _LONG.search(text):
        return False
    if len(re.findall(r"[-+*/^_]|\\[A-Za-z]+", text)) > MOST_OPERATORS or _depth(text) > DEEPEST:
        return False
    if any(not number or int(number) > 100 for number in _FACTORIAL.findall(text)):
        return False
    powers = [_power(text, raised) for raised in _RAISED.finditer(text)]
    if None in powers:
        return False
    of_brackets = math.prod(
        power or 1
        for power, raised in zip(powers, _RAISED.finditer(text), strict=True)
        if text[: raised.start()].rstrip()[-1:] in ")}"
    )
    return of_brackets * max((power or 1 for power in powers), default=1) <= LARGEST_POWER


def _is_low(text: str) -> bool:
    """Whether no power is above a few, so that what is solved or simplified stays short."""
    powers = [_power(text, raised) for raised in _RAISED.finditer(text)]
    return len(text) <= LONGEST // 2 and all(
        power is not None and power <= LARGEST_SOLVED for power in powers
    )


def _depth(text: str) -> int:
    """Brackets within brackets, whether they are closed or not."""
    deepest = depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}" and depth > 0)
        deepest = max(deepest, depth)
    return deepest


def _power(text: str, raised: re.Match[str]) -> int | None:
    """A power as far as its digits tell; None for a tower of powers."""
    power, depth = raised[1], 0
    if power in "{(":
        for i in range(raised.end() - 1, len(text)):
            depth += (text[i] in "({") - (text[i] in ")}")
            if depth == 0:
                power = text[raised.end() - 1 : i + 1]
                break
        else:
            return None
    elif power.isdigit():
        power = re.match(r"\d+", text[raised.end() - 1 :])[0]  # type: ignore[index]
    after = text[raised.end() - 1 + len(power) :].lstrip("} )")
    if "^" in power or "!" in power or after.startswith(("^", "!")):
        return None
    return math.prod(max(int(number), 1) for number in re.findall(r"\d+", power))
