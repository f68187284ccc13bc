"""Tasks of reasoning-gym: problems drawn from a seed at chosen difficulties, scored by the task's own rule.

`reasoning-gym:chain_sum?max_terms=3&max_digits=2,leg_counting` names tasks, each with settings of its configuration
behind a question mark; of a setting with several values, `max_terms=3|6|9`, each value is a level. The package is an
extra: `pip install 'normprobe[reasoning-gym]'`.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.final_answer import final_answer, plain
from normprobe.problems.problem_rows import same_question
from normprobe.problems.source import COLUMNS, SPLITS, Regime, check_problems, own_problems

_SIZE = 10_000
"""Items of a data set of reasoning-gym: most are drawn when asked for, of a few tasks (acre) all at the beginning."""
_PATIENCE = 400
"""Items without a new question after which a task counts as exhausted."""
# Scorers hand answers to SymPy, which evaluates them: nothing gets there that takes long, or that is a program.
_UNSAFE = re.compile(r"__|(?:\*\*|\^)[^,;\s]*(?:\*\*|\^|!)|\d{4,}\s*(?:!|\*\*|\^)|(?:\*\*|\^)\s*\(?\d{4,}")


def _any(question: str) -> bool:
    return True


@dataclass(frozen=True)
class GymTask:
    """A task of reasoning-gym with its settings; level: its place among the task's levels from 1, None if alone."""

    task: str
    settings: tuple[tuple[str, Any], ...]
    level: int | None


@dataclass(frozen=True)
class GymProblems:
    """Problems of reasoning-gym's tasks in equal parts; no question comes twice.

    wanted: which questions (as `same_question` has them) may be drawn.
    """

    name: str
    tasks: tuple[GymTask, ...]
    max_new_tokens: int = 2048
    wanted: Callable[[str], bool] = _any

    @property
    def roles(self) -> None:
        return None

    def load(self, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
        """`sizes[split]` problems for each split, the tasks in turn.

        domain: the task. difficulty: the level, where a setting has several values; else the first quantity that the
        task names as its difficulty, as the problem has it (chain_sum: terms). answer: as the task gives it, or, where
        its scorer reads more than that or the tasks have different scorers, JSON that tells the problem.
        Raises NormprobeError for a task that has fewer questions.
        """
        used = set[str]()
        drawn = {number: self.draw(number, seed, used) for number in range(len(self.tasks))}
        rows = [
            next(drawn[number])[0] | {"split": split}
            for split in SPLITS
            for number in itertools.islice(itertools.cycle(drawn), sizes[split])
        ]
        return check_problems(pd.DataFrame(rows)[list(COLUMNS)], self.name)

    def draw(self, number: int, seed: int, used: set[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The problems of a task in order, each as a row of problems and as the entry of reasoning-gym.

        used: the questions (`same_question`) to leave out, to which those drawn are added.
        Raises NormprobeError, when asked for one more, if there is none.
        """
        chosen, of_task = self.tasks[number], (seed * len(self.tasks) + number) * (_SIZE + 1) % 2**31
        dataset, latest = open_task(chosen, of_task), 0
        for index in range(_SIZE):
            if index > latest + _PATIENCE:
                break
            entry = dataset[index]
            if (key := same_question(entry["question"])) in used or not self.wanted(key):
                continue
            used.add(key)
            latest = index
            gold = entry["answer"]
            if gold is None or self._ambiguous or _reads_more(dataset):
                gold = json.dumps({"task": number, "seed": of_task, "index": index, "answer": gold})
            row = {
                "problem_id": f"{chosen.task}-{number}-{index:06d}",
                "domain": chosen.task,
                "difficulty": chosen.level or _difficulty(entry["metadata"]),
                "question": entry["question"],
                "answer": gold,
            }
            yield row, entry
        raise NormprobeError(
            f"expected more questions of reasoning-gym's {chosen.task}, got no new one in {_PATIENCE} draws after "
            f"{latest + 1}; ask for fewer problems (--n-sae, --n-select, --n-measure), or widen its settings"
        )

    def score(self, answer: str, gold: str) -> bool:
        """Whether the scorer of the task gives full marks to the final answer in the text."""
        return full_marks(*self._judge(gold), answer)

    def _judge(self, gold: str) -> tuple[Any, dict[str, Any]]:
        """The data set that scores answers to a problem, and its entry as that reads it."""
        if gold.startswith('{"task": '):
            about = json.loads(gold)
            dataset = open_task(self.tasks[about["task"]], about["seed"])
            return dataset, dataset[about["index"]]
        plain_ones = (open_task(chosen, 0) for chosen in self.tasks)
        return next(dataset for dataset in plain_ones if not _reads_more(dataset)), {"answer": gold}

    @property
    def _ambiguous(self) -> bool:
        """Whether the tasks score by different rules, so that a gold answer has to tell whose it is."""
        datasets = (open_task(chosen, 0) for chosen in self.tasks)
        return len({type(dataset).score_answer for dataset in datasets if not _reads_more(dataset)}) > 1

    def check(self) -> None:
        """Raises NormprobeError for settings that a task refuses, and without the package."""
        for chosen in self.tasks:
            open_task(chosen, 0)

    def fingerprint(self) -> str:
        """The version of reasoning-gym: all else is in the name and the seed."""
        return f"reasoning-gym {version('reasoning-gym')}"

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """The run's own problems, greedy and at temperature 1: `select` to tune on, `measure` to test on."""
        return own_problems(problems, self.name)


def open_named(rest: str) -> GymProblems:
    """The problems of tasks such as `chain_sum?max_terms=3,leg_counting`.

    Raises NormprobeError for unknown tasks and settings, and without the package.
    """
    datasets = _package().factory.DATASETS
    tasks: list[GymTask] = []
    for part in rest.split(","):
        task, _, settings = part.strip().partition("?")
        if task not in datasets or task == "composite":
            near = ", ".join(get_close_matches(task, datasets, n=3, cutoff=0.4)) or "its gallery lists them"
            raise NormprobeError(
                "expected tasks of reasoning-gym as in reasoning-gym:chain_sum?max_terms=3,leg_counting, "
                f"got {task!r}; correct the name ({near})"
            )
        levels = _levels(task, settings)
        for level, chosen in enumerate(levels, start=1):
            tasks.append(GymTask(task, chosen, level if len(levels) > 1 else None))
    problems = GymProblems(f"reasoning-gym:{rest}", tuple(tasks))
    problems.check()
    return problems


def _levels(task: str, settings: str) -> list[tuple[tuple[str, Any], ...]]:
    """The settings of each level: all combinations of the values given."""
    given: list[list[tuple[str, Any]]] = []
    for setting in filter(None, settings.split("&")):
        name, equals, values = setting.partition("=")
        if not equals or name in ("seed", "size"):
            raise NormprobeError(
                f"expected settings of reasoning-gym's {task} as in max_terms=3&max_digits=2, got {setting!r}; "
                "correct it"
            )
        given.append([(name, _value(value)) for value in values.split("|")])
    return list(itertools.product(*given))


def _value(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def _package() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise NormprobeError(
            "expected the package reasoning-gym, got none; pip install 'normprobe[reasoning-gym]'"
        ) from error
    return reasoning_gym


@lru_cache(maxsize=64)
def open_task(chosen: GymTask, seed: int) -> Any:
    """The problems of a task. Raises NormprobeError for settings that it refuses, and without the package."""
    reasoning_gym = _package()
    try:
        dataset = reasoning_gym.create_dataset(chosen.task, seed=seed, size=_SIZE, **dict(chosen.settings))
        dataset[0]
    except Exception as error:  # a task checks its settings by assertions, or fails on them when it draws
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NormprobeError(
            f"expected settings that reasoning-gym's {chosen.task} takes, got {dict(chosen.settings)} ({reason}); "
            "correct them"
        ) from error
    return dataset


def _reads_more(dataset: Any) -> bool:
    """Whether the task's scorer reads more of a problem than its answer."""
    constants = type(dataset).score_answer.__code__.co_consts
    return "metadata" in constants or "question" in constants


def full_marks(dataset: Any, entry: dict[str, Any], text: str) -> bool:
    """Whether the scorer of a task gives full marks to the final answer in a text; entry: the problem."""
    found = final_answer(plain(text))
    pieces = dict.fromkeys(filter(None, [text.strip(), *map(str.strip, found.pieces), found.number]))
    return any(_gets_full_marks(dataset, piece, entry) for piece in pieces)


def _gets_full_marks(dataset: Any, answer: str, entry: dict[str, Any]) -> bool:
    if _UNSAFE.search(answer):
        return False
    try:
        return float(dataset.score_answer(answer, entry)) >= 1 - 1e-9
    except Exception:  # scorers raise what they like at text that they cannot read
        return False


def _difficulty(metadata: Mapping[str, Any]) -> int | float | None:
    """The first quantity of a problem that its metadata names under "difficulty"; a number there counts itself."""
    named = metadata.get("difficulty")
    values = (
        [named] if not isinstance(named, Mapping) else [metadata.get(name, of) for name, of in named.items()]
    )
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return numbers[0] if numbers else None
