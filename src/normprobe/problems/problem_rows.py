r"""Rows of any data set as problems: columns by the names that data sets give them, every cell checked.

GSM8K (question, answer "… #### 42"), MATH (problem, solution with \boxed, level, type), AIME (Problem, Answer), GPQA
(Question, Correct Answer, Incorrect Answer 1–3), Omni-MATH (problem, answer, difficulty, domain), MMLU (question,
choices, answer) are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.scoring import read_gold
from normprobe.problems.source import COLUMNS, check_problems

NAMES = {
    "question": ("question", "problem"),
    "answer": ("answer", "correct answer", "solution"),
    "domain": ("domain", "subject", "type", "high-level domain", "category"),
    "difficulty": ("difficulty", "level"),
    "choices": ("choices", "options"),
    "problem_id": ("problem_id",),
    "split": ("split",),
}
"""What is looked for, and the names that data sets have for it, the first that is there; case does not matter."""
INCORRECT = re.compile(r"incorrect answer \d+", re.IGNORECASE)
"""Columns of wrong choices, as in GPQA."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class _Refused(Exception):
    """What was expected of a cell and what it holds; the caller knows file and row."""


def problem_table(rows: Sequence[Mapping[str, Any]], source: str, stem: str, seed: int) -> pd.DataFrame:
    """The rows of a data set as problems, with the columns `COLUMNS`.

    source: its name in messages; stem: what ids begin with where it has none. Without a column `split`, a hash of seed
    and problem_id puts half of the questions into "sae" and a quarter each into "select" and "measure"; a question that
    comes again goes where it was first. Choices (GPQA) are shuffled by the seed, and lettered.

    Raises NormprobeError, with the row's number, for a cell that is no text or number, a gold answer that cannot be
    judged, a question in two splits, repeated ids, unknown splits or small ones.
    """
    columns = {
        name: _column(rows, known if name != "answer" or not _has_choices(rows) else known[:2])
        for name, known in NAMES.items()
    }
    if not rows:
        raise NormprobeError(f"expected problems in {source}, got no rows; add some")
    if columns["question"] is None:
        there = ", ".join(dict.fromkeys(f"{name!r:.40}" for row in rows[:1] for name in row))
        raise NormprobeError(
            f"expected a 'question' in every row of {source}, got only {there or 'empty rows'}; "
            "add or rename the column"
        )
    problems = []
    for number, row in enumerate(rows, start=1):
        cells = {name: None if column is None else row.get(column) for name, column in columns.items()}
        try:
            problems.append(_problem(row, cells, columns, f"{stem}-{number - 1:05d}", seed))
        except _Refused as refused:
            expected, got, advice = refused.args
            raise NormprobeError(
                f"expected {expected} in every row of {source}, got {got} in row {number}; {advice}"
            ) from None
    _assign_splits(problems, source, seed)
    return check_problems(pd.DataFrame(problems)[list(COLUMNS)], source)


def _column(rows: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str | None:
    there = {name: None for row in rows for name in row}
    for wanted in known:
        if found := [name for name in there if name.strip().lower() == wanted]:
            return min(found, key=lambda name: name != wanted)
    return None


def _has_choices(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(INCORRECT.fullmatch(name) for row in rows[:1] for name in row)


def _problem(
    row: Mapping[str, Any], cells: dict[str, Any], columns: Mapping[str, str | None], name: str, seed: int
) -> dict[str, Any]:
    if columns["problem_id"] is not None:
        name = _id(cells["problem_id"])
    asked = _text(cells["question"], "a 'question'")
    question, answer = asked, cells["answer"]
    wrong = [row[column] for column in row if INCORRECT.fullmatch(column) and not _is_missing(row[column])]
    if wrong:
        right = _text(answer, "a 'Correct Answer'")
        shuffled = [right, *(_text(choice, "an 'Incorrect Answer'") for choice in wrong)]
        random.Random(f"{seed}/{name}").shuffle(shuffled)
        question, answer = with_choices(asked, shuffled), LETTERS[shuffled.index(right)]
    elif not _is_missing(cells["choices"]):
        choices = cells["choices"]
        if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
            raise _Refused("a list of choices", _shown(choices), "correct it")
        question = with_choices(asked, [_text(choice, "choices as texts") for choice in choices])
        answer = _chosen(answer, choices)
    return {
        "problem_id": name,
        "domain": _domain(cells["domain"]),
        "difficulty": _difficulty(cells["difficulty"]),
        "question": question,
        "asked": asked,
        "answer": gold_text(answer, long=(columns["answer"] or "").strip().lower() == "solution"),
        "split": None if columns["split"] is None else _text(cells["split"], "a split"),
    }


def with_choices(question: str, choices: Sequence[str]) -> str:
    """A question with its choices, lettered, and the request for a letter."""
    lines = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question.rstrip()}\n\n{lines}\n\nAnswer with the letter of the right choice."


def _chosen(answer: Any, choices: Sequence[str]) -> str | None:
    """The letter of the right choice, from its number counted from 0, its letter, or its text."""
    if _is_missing(answer):
        return None
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return LETTERS[answer]
    if isinstance(answer, str) and answer.strip().upper() in tuple(LETTERS[: len(choices)]):
        return answer.strip().upper()
    if isinstance(answer, str) and choices.count(answer) == 1:
        return LETTERS[choices.index(answer)]
    raise _Refused("an answer among the choices", _shown(answer), "give its number, letter or text")


def gold_text(answer: Any, long: bool = False) -> str | None:
    """A gold answer as text, None for a missing one: a list of accepted answers becomes JSON.

    long: it is a whole solution, which has to mark its answer by a box or `####`. Raises `_Refused`.
    """
    if _is_missing(answer):
        return None
    if isinstance(answer, list):
        members = [gold_text(member) for member in answer]
        if not members or None in members:
            raise _Refused("an answer or a list of accepted ones", _shown(answer), "correct it")
        text = members[0] if len(members) == 1 else json.dumps(members, ensure_ascii=False)
    elif isinstance(answer, float):
        if not math.isfinite(answer):
            raise _Refused("a finite answer", _shown(answer), "correct it")
        text = str(int(answer)) if answer.is_integer() and abs(answer) < 1e15 else repr(answer)
    elif isinstance(answer, int | Decimal) and not isinstance(answer, bool):
        text = str(answer)
    else:
        text = _text(answer, "an answer as text, number or list of texts")
    assert text is not None
    if not read_gold(text):
        raise _Refused("an answer that can be judged", _shown(answer), "correct it, or leave it missing")
    if long and not re.search(r"\\f?box|####", text):
        raise _Refused(r"a solution with \boxed{…} or ####", _shown(answer), "add a column 'answer'")
    return text


def _text(value: Any, expected: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Refused(expected, _shown(value), "correct or drop it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _Refused(f"{expected} in Unicode", "half of a surrogate pair", "correct it") from None
    return value


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "a 'problem_id'")


def _domain(value: Any) -> str | None:
    """A domain as text; of several (Omni-MATH) the first."""
    if isinstance(value, list) and value:
        value = value[0]
    return None if _is_missing(value) else _text(value, "a domain as text")


def _difficulty(value: Any) -> int | float | str | None:
    """A difficulty: a number, also of a text such as "Level 5"; another text as it is."""
    if _is_missing(value):
        return None
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(?:level\s*)?(\d+(?:\.\d+)?)\s*", value, re.I)):
        value = float(found[1])
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _text(value, "a difficulty as a number or text")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = " ".join(repr(value).split())
    return f"{text[:60]}… ({type(value).__name__})" if len(text) > 60 else f"{text} ({type(value).__name__})"


def same_question(question: str) -> str:
    """What two questions share that are one: the text without case, form of its characters, and white space."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def _assign_splits(problems: list[dict[str, Any]], source: str, seed: int) -> None:
    """Put every question into one split. Raises NormprobeError where the data set has it in two."""
    first: dict[str, tuple[int, str]] = {}
    for number, problem in enumerate(problems, start=1):
        split = problem["split"] or _split(f"{seed}/{problem['problem_id']}")
        before, of_first = first.setdefault(same_question(problem.pop("asked")), (number, split))
        if problem["split"] is not None and split != of_first:
            raise NormprobeError(
                f"expected each question in one split of {source}, got that of row {number} in '{split}' and, "
                f"in row {before}, in '{of_first}'; drop one of them"
            )
        problem["split"] = of_first
    if any(isinstance(problem["difficulty"], str) for problem in problems):
        for problem in problems:
            if problem["difficulty"] is not None:
                problem["difficulty"] = str(problem["difficulty"])


def _split(key: str) -> str:
    return ("sae", "sae", "select", "measure")[hashlib.blake2b(key.encode(), digest_size=1).digest()[0] % 4]
