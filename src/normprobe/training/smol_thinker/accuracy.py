"""Accuracy of a model on the families of smol-thinker, greedy: by family, level and mode."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from normprobe.problems.smol_thinker.families import FAMILIES, LONGEST, FamilyProblem, score
from normprobe.training.sampling import respond
from normprobe.training.smol_thinker.dialogue import answer_of, prompt
from normprobe.training.smol_thinker.role_reading import read

MODES = ("think", "no_think")
MAX_NEW_TOKENS = {"think": LONGEST, "no_think": 48}
"""Longer than any demonstration."""


def held_out(n: int, seed: int) -> list[FamilyProblem]:
    """n problems of each family and level, none of which training draws."""
    found = []
    for family in FAMILIES.values():
        for level in range(1, len(family.levels) + 1):
            found += family.problems(level, n, seed, "eval")
    return found


@torch.inference_mode()
def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[FamilyProblem],
    *,
    batch_size: int = 32,
) -> pd.DataFrame:
    """A row for each problem and mode: family, level, mode, right, closed (the thought), tokens written, and of these
    how many have a role, stand in lines of the solver, and have its role there (`RoleReading`).

    An answer counts only after the thought was closed.
    """
    rows = []
    end: Any = tokenizer.eos_token_id
    order = sorted(range(len(problems)), key=lambda i: len(problems[i].question))
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for mode, chunk in product(MODES, chunks):
        texts = [prompt(tokenizer, problems[i].question, mode) for i in chunk]
        inputs = tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        inputs = inputs.to(model.device)
        written = respond(
            model,
            inputs["input_ids"],
            inputs["attention_mask"],
            ends=[end],
            max_new_tokens=MAX_NEW_TOKENS[mode],
            temperature=None,
        )
        for i, ids in zip(chunk, written, strict=True):
            answer, problem = answer_of(str(tokenizer.decode(ids)), mode), problems[i]
            texts = [str(tokenizer.decode(token)) for token in ids[ids != tokenizer.pad_token_id]]
            rows.append(
                {
                    "family": problem.family,
                    "level": problem.level,
                    "mode": mode,
                    "right": answer is not None and score(problem, answer),
                    "closed": answer is not None,
                }
                | read(problem, texts)._asdict()
            )
    return pd.DataFrame(rows)
