"""Groups of like tokens, within which a matched control moves its doses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int

PLACES = 4
"""Parts that a response is cut into: tokens of one group stand in the same quarter."""


def token_groups(
    tokens: pd.DataFrame, problem_ids: Sequence[str], n_steps: int
) -> Int[torch.Tensor, "problem step"]:
    """The group of each step by problem: the class of the token that the plain response generates there, and its place.

    tokens: traces/tokens.parquet, whose think responses are those of the treatment `plain` (both greedy). Class: the
    token's role where the run has roles, else its kind of string, as most single strings would be groups of one. Place:
    the quarter of the plain response. A state has the class of the token it yields, not of the one it has just read,
    since a disturbance first spoils the token that comes next.

    Approximate: a disturbed response may hold another token at a step than the plain one. Steps beyond the plain
    response are group 0.
    """
    generated = tokens[
        (tokens["mode"] == "think")
        & (tokens["sample"] == 0)
        & (tokens["segment"] != "prompt")
        & tokens["problem_id"].isin(list(problem_ids))
    ]
    kinds = generated["role"] if tokens["role"].notna().any() else generated["token"].map(kind)
    by_problem = generated.groupby("problem_id")["token"]
    step, length = by_problem.cumcount(), by_problem.transform("size")
    group = 1 + PLACES * pd.factorize(kinds, use_na_sentinel=False)[0] + PLACES * step // length
    table = pd.DataFrame({"problem_id": generated["problem_id"], "step": step, "group": group})
    groups = table.pivot(index="problem_id", columns="step", values="group")
    groups = groups.reindex(index=list(problem_ids), columns=range(n_steps)).fillna(0)
    return torch.tensor(groups.to_numpy(dtype=np.int64))


def kind(token: str) -> str:
    """`number` for text with a digit, else `word` for text with a letter, else `mark`."""
    if any(character.isdigit() for character in token):
        return "number"
    return "word" if any(character.isalpha() for character in token) else "mark"
