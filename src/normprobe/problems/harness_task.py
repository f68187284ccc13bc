"""A task of lm-evaluation-harness: `lm-eval:TASK` or its bare name, `lm-eval:FILE.yaml` for a task of one's own.

The question is what the task asks without examples (`doc_to_text`), the gold answer its target; choices of a
multiple-choice task are lettered. lm-eval is an extra: `pip install 'normprobe[lm-eval]'`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.problem_rows import problem_table
from normprobe.problems.scoring import matches
from normprobe.problems.source import Regime, own_problems
from normprobe.runs.atomic import sha256_of

_NAME = re.compile(r"[A-Za-z][\w-]*")
SUPPORTED = ("generate_until", "multiple_choice")


@dataclass(frozen=True)
class HarnessProblems:
    """The test documents of a task (or those for validation); answers are judged by `matches`, no token has a role."""

    task: str
    max_new_tokens: int = 2048
    asks_hub: bool = True

    @property
    def name(self) -> str:
        return f"lm-eval:{self.task}"

    @property
    def roles(self) -> None:
        return None

    def load(self, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
        """All documents of the task, whatever the sizes; see `problem_table`.

        Raises NormprobeError as that does, for a task that cannot be had, and for one without free answers or choices.
        """
        task = self._opened()
        rows = [self._row(task, document) for document in task.eval_docs]
        return problem_table(rows, self.name, Path(self.task).stem, seed)

    def _opened(self) -> Any:
        from lm_eval.tasks import TaskManager

        path = Path(self.task)
        own = path.suffix == ".yaml"
        name, folder = (path.stem, str(path.resolve().parent)) if own else (self.task, None)
        manager = TaskManager(include_path=folder, include_defaults=not own)
        if name not in manager.all_tasks:
            raise NormprobeError(
                f"expected a task that lm-eval knows, got {name!r}; `normprobe lm-eval ls tasks` lists them (that of a "
                "file has the file's name)"
            )
        try:
            tasks = list(manager.load([name])["tasks"].values())
        except Exception as error:  # of its data set, its templates or its code
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise NormprobeError(
                f"expected the data of lm-eval's task {name}, got an error ({reason}); check the network, or the task"
            ) from error
        if len(tasks) != 1:
            raise NormprobeError(f"expected one task, got {name!r} of {len(tasks)}; name one of them")
        if tasks[0].OUTPUT_TYPE not in SUPPORTED:
            raise NormprobeError(
                f"expected a task that generates or offers choices, got {name} ({tasks[0].OUTPUT_TYPE}); choose another"
            )
        return tasks[0]

    def _row(self, task: Any, document: Mapping[str, Any]) -> dict[str, Any]:
        target = task.doc_to_target(document)
        if task.OUTPUT_TYPE == "generate_until":
            answer = target.strip() if isinstance(target, str) else target
            return {"question": task.doc_to_text(document), "answer": answer}
        choices = [str(choice).strip() for choice in task.doc_to_choice(document)]
        return {"question": task.doc_to_text(document), "choices": choices, "answer": target}

    def fingerprint(self) -> str:
        """The version of lm-eval, and of a file its hash."""
        path, found = Path(self.task), f"lm-eval {version('lm-eval')} {self.task}"
        return f"{found} {sha256_of(path)}" if path.suffix == ".yaml" else found

    def score(self, answer: str, gold: str) -> bool:
        """Whether the text gives the gold answer, as `matches` has it."""
        return matches(answer, gold)

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """The run's own problems, greedy and at temperature 1: `select` to tune on, `measure` to test on."""
        return own_problems(problems, self.name)


def has_task(name: str) -> bool:
    """Whether an installed lm-eval brings a task of this name, by the lines of its files: to read them all as lm-eval
    does takes ten seconds."""
    package = find_spec("lm_eval")
    if package is None or package.origin is None or not _NAME.fullmatch(name):
        return False
    line = re.compile(rb"^task: *[\"']?%b[\"']?\s*$" % name.encode(), re.MULTILINE)
    files = (Path(package.origin).parent / "tasks").rglob("*.yaml")
    return any(line.search(file.read_bytes()) for file in files)


def open_named(rest: str) -> HarnessProblems:
    """The problems of a task. Raises NormprobeError for no name, an absent file, or without lm-eval."""
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise NormprobeError(
            "expected the package lm-eval, got none; pip install 'normprobe[lm-eval]'"
        ) from error
    if not rest or (rest.endswith(".yaml") and not Path(rest).is_file()):
        raise NormprobeError(
            f"expected a task as in lm-eval:gsm8k, or a .yaml file of one, got {rest!r}; name one"
        )
    return HarnessProblems(rest)
