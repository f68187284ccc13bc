"""Thoughts for sums and differences in a chain, and for the legs of animals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normprobe.problems.smol_thinker.lines import INTEGER, Form, Part, Repeated, Solver

ANIMAL = "[a-z]+(?: [a-z]+)*"
NUMBER: Form = [(INTEGER, "answer")]


def _terms(expression: str) -> list[Part]:
    return [("Plan: ", "format"), (expression, "plan")]


def _step(link: str, total: str, sign: str, term: str, result: str) -> list[Part]:
    return [
        (link, "connective"),
        (" ", "format"),
        (total, "copied"),
        (sign, "copied"),
        (term, "copied"),
        ("=", "format"),
        (result, "computed"),
    ]


def _chain_sum(metadata: Mapping[str, Any]) -> list[list[Part]]:
    """`47-85` in steps that a small model can take: `47-80=-33`, then `-33-5=-38`."""
    first, *rest = metadata["expression"].split()
    lines = [_terms("".join([first, *rest]))]
    total = int(first)
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        places = [digit + "0" * place for digit, place in zip(term, range(len(term))[::-1], strict=True)]
        for part in [part for part in places if int(part)] or ["0"]:
            result = total + int(sign + part)
            link = "First" if len(lines) == 1 else "Then"
            lines.append(_step(link, str(total), sign, part, str(result)))
            total = result
    return lines


CHAIN_SUM = Solver(
    _chain_sum,
    (
        _terms(r"-?\d+(?:[-+]\d+)*"),
        _step("First|Then", INTEGER, r"[-+]", r"\d+", INTEGER),
    ),
    NUMBER,
)


def _legs(link: str, animals: str, each: str, count: str, product: str) -> list[Part]:
    """The number of legs that an animal has stands nowhere in the question, so it is computed."""
    return [
        (link, "connective"),
        (" " + animals, "copied"),
        (" ", "format"),
        (each, "computed"),
        ("x", "format"),
        (count, "copied"),
        ("=", "format"),
        (product, "computed"),
    ]


def _added(total: str, plus: str, product: str, result: str) -> list[Part]:
    return [
        (", ", "format"),
        (total, "copied"),
        (plus, "format"),
        (product, "copied"),
        ("=", "format"),
        (result, "computed"),
    ]


def _leg_counting(metadata: Mapping[str, Any]) -> list[list[Part]]:
    """`beetles 6x13=78, 24+78=102` for each kind of animal."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    counts = {
        f"{name}s" if count > 1 else name: (ANIMALS[name], count)
        for name, count in metadata["animals"].items()
    }
    plan: list[Part] = [("Plan:", "format")]
    for animals in counts:
        plan.extend([(f" {animals}", "plan"), (",", "format")])
    lines, total = [plan[:-1]], 0
    for animals, (each, count) in counts.items():
        first = len(lines) == 1
        line = _legs("First" if first else "Then", animals, str(each), str(count), str(each * count))
        if not first:
            line += _added(str(total), "+", str(each * count), str(total + each * count))
        total += each * count
        lines.append(line)
    return lines


_PRODUCT = _legs("First|Then", ANIMAL, INTEGER, INTEGER, INTEGER)
LEG_COUNTING = Solver(
    _leg_counting,
    (
        [("Plan:", "format"), (f" {ANIMAL}", "plan"), Repeated(([(",", "format"), (f" {ANIMAL}", "plan")],))],
        _PRODUCT,
        _PRODUCT + _added(INTEGER, "[+]", INTEGER, INTEGER),
    ),
    NUMBER,
)
