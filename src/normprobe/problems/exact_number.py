r"""A number as people write it, read exactly: never through a float, so that long integers keep their last digit.

`1,234`, `1{,}234`, `.5`, `1e-3`, `3 \times 10^8`, `3/4`, `\frac{3}{4}`, `1 1/2`, `50%`, `$18`,
`x = 7`, `5 cm^2`, `2 million`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 1000
"""Digits and powers of ten beyond which a text is not read as a number."""
NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})++(?!,?\d)|\d++)(?:\.\d++)?|\.\d++)(?:[eE][-+]?\d{1,9}+)?"
"""A number without its sign, as a pattern: thousands in threes, or no separators at all."""

_POWER = rf"({NUMBER})\s*(?:\\times|\\cdot|\*|x|×)\s*10\s*\^\s*\{{?\s*([-+]?\d{{1,9}})\s*\}}?"
_FRACTION = r"\\[dtc]?frac\s*(?:\{\s*([-+]?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))"
_PERCENT = r"\\?%|percent(?:age)?(?:\s+points?)?\b|pct\b|per cent\b"
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# A unit is up to three words or an abbreviation; a digit in it is an exponent, as in cm^2 and m2. A lone letter in the
# list is a variable, and a word of the second list begins another part of the sentence.
_UNIT = r"(?!(?:[a-eikn-rt-z]|or|and|to|plus|minus|times|mod|is)\b)[A-Za-zµΩ]+(?:\^?\{?-?\d\}?)?"
_REST = rf"(?P<unit>{_UNIT}(?:\s*[ /·.-]\s*{_UNIT}){{0,2}})?"
_NAME = re.compile(r"\s*\\?[A-Za-z]\w{0,11}(?:_\{?\w+\}?)?(?:\(\w\))?\s*=(?!=)")
_MONEY = re.compile(r"\\?\$|[€£¥₹]|\\(?:pounds|euro)\b")
_SPACING = re.compile(r"\\[,!;: ]|\\(?:left|right|displaystyle|quad)(?![a-zA-Z])|(?<![A-Za-z])~")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf|textrm|operatorname)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°)\s*(?:[CFcf]\b)?")
_BRACKETED = re.compile(r"\(([^(),]*)\)")


@dataclass(frozen=True)
class Quantity:
    """An exact number. places, digits: after the point, and significant, of a number with a point, else 0."""

    value: Fraction
    places: int = 0
    digits: int = 0
    percent: bool = False
    unit: str = ""

    def gives(self, gold: Quantity) -> bool:
        """Whether both are one number.

        A decimal of five places or more may be a rounded or cut-off value. A percent sign counts as a unit, or as
        1/100, whichever fits. Two units have to begin alike ("cm", "centimeters").
        """
        if self.unit and gold.unit and self.unit[0] != gold.unit[0]:
            return False
        mine, theirs = ({q.value, q.value / 100} if q.percent else {q.value} for q in (self, gold))
        return bool(mine & theirs) or _rounded(self, gold) or _rounded(gold, self)


def read_quantity(text: str) -> Quantity | None:
    """The number that the whole text is, with its unit; None where it is anything else."""
    text = _DEGREES.sub(" ", _SPACING.sub("", text.replace("{,}", ",")))
    text = _MONEY.sub("", _TEXT.sub(r" \1 ", text))
    if (named := _NAME.match(text)) is not None:
        text = text[named.end() :]
    text = text.strip(" \t\n*_").removesuffix(".").rstrip()
    if (inner := _BRACKETED.fullmatch(text)) is not None:
        text = inner[1].strip()
    if len(text) > 2 * LONGEST:
        return None
    sign = -1 if text.startswith("-") else 1
    text = re.sub(r"^[-+]\s*", "", text)
    for pattern, read in _FORMS:
        if found := pattern.fullmatch(text):
            quantity = read(found)
            return None if quantity is None else _with_rest(quantity, sign, found)
    return None


def _rounded(decimal: Quantity, other: Quantity) -> bool:
    if decimal.places < 5 or decimal.digits < 5:
        return False
    return abs(decimal.value - other.value) < Fraction(1, 10**decimal.places)


def _with_rest(quantity: Quantity, sign: int, found: re.Match[str]) -> Quantity:
    """The number with the sign before it, and the scale, percent sign or unit behind it."""
    unit = (found["unit"] or "").casefold()
    first, _, others = unit.partition(" ")
    scale = _SCALES.get(first.removesuffix("s"), 1)
    return Quantity(
        sign * quantity.value * scale,
        quantity.places if scale == 1 else 0,
        quantity.digits,
        found["percent"] is not None,
        others if scale > 1 else unit,
    )


def _decimal(text: str) -> Quantity | None:
    mantissa, _, power = text.replace(",", "").casefold().partition("e")
    if len(mantissa) > LONGEST or abs(int(power or 0)) > LONGEST:
        return None
    whole, _, places = mantissa.partition(".")
    digits = len((whole + places).lstrip("0")) if places else 0
    value = Fraction(mantissa) * Fraction(10) ** int(power or 0)
    return Quantity(value, max(len(places) - int(power or 0), 0) if places else 0, digits)


def _power(found: re.Match[str]) -> Quantity | None:
    return _decimal(f"{found[1].casefold().partition('e')[0]}e{found[2]}")


def _ratio(top: str, bottom: str, whole: str = "0") -> Quantity | None:
    if int(bottom) == 0:
        return None
    return Quantity(Fraction(int(whole.replace(",", ""))) + Fraction(int(top.replace(",", "")), int(bottom)))


def _fraction(found: re.Match[str], first: int = 1, whole: str = "0") -> Quantity | None:
    groups = found.groups()[first - 1 : first + 3]
    return _ratio(groups[0] or groups[1], groups[2] or groups[3], whole)


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"{pattern}\s*(?P<percent>{_PERCENT})?\s*{_REST}", re.IGNORECASE)


_FORMS = (
    (_form(rf"({NUMBER})"), lambda found: _decimal(found[1])),
    (_form(_POWER), _power),
    (_form(r"10\s*\^\s*\{?\s*([-+]?\d{1,9})\s*\}?"), lambda found: _decimal(f"1e{found[1]}")),
    (_form(r"(\d{1,3}(?:,\d{3})+|\d+)\s*/\s*(\d+)"), lambda found: _ratio(found[1], found[2])),
    (_form(r"(\d+)\s+(\d+)\s*/\s*(\d+)"), lambda found: _ratio(found[2], found[3], found[1])),
    (_form(_FRACTION), _fraction),
    (_form(rf"(\d+)\s*{_FRACTION}"), lambda found: _fraction(found, 2, found[1])),
)
