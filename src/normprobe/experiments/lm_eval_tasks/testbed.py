"""What the YAML files name: the documents of a task, and the judge of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.scoring import correct

if TYPE_CHECKING:
    from datasets import Dataset

N_DOCUMENTS = 400
"""Per task: 50 of each difficulty, difficulties in turn, so that `--limit 8n` keeps them balanced."""

SEED = 4013
"""Of the evaluation problems, which are disjoint from training by construction; no study of the package uses it."""

CLOSE = "</think>"


def documents(domain: str, distractors: int | None = None, **_metadata: Any) -> dict[str, Dataset]:
    """The documents of a task, in the one split "test".

    distractors: how many in each problem; None draws 0…3, as in training.
    lm-eval also hands over all of `--model_args` and `--metadata`: none of it is read, since no setting of a model may
    change the problems.
    """
    from datasets import Dataset

    problems = make_problems(N_DOCUMENTS, SEED, domains=[domain], distractors=distractors)
    columns = ("id", "domain", "difficulty", "question", "answer")
    return {"test": Dataset.from_list([{name: getattr(p, name) for name in columns} for p in problems])}


def judge(document: dict[str, Any], responses: list[str]) -> dict[str, float]:
    """1.0 if what follows the thought is exactly the answer, by the testbed's own rule, else 0.0.

    Responses come with or without their thought, as the model class has it. A thought that never closed is no answer.
    """
    _, _, answer = responses[0].rpartition(CLOSE)
    return {"exact_match": float(correct(answer, document["answer"]))}
