"""Problems on which two models are equally often right: what is compared on them is not compared at unequal ability."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from normprobe.claims.measure.measured_tokens import FEWEST_PROBLEMS

CLOSE = 0.03
"""Accuracies no further apart are matched."""
MOST = 0.5
"""Of the problems more than this share must be left."""


class MatchedProblems(NamedTuple):
    """Problems to compare two models on, at matched accuracy.

    problems: their ids; accuracy: of the two models on all problems; how: the problems in words; lacking: why accuracy
    could not be matched (then `problems` are all), else empty.
    """

    problems: pd.Index
    accuracy: tuple[float, float]
    how: str
    lacking: str


def matched_problems(right: pd.DataFrame) -> MatchedProblems:
    """The problems of a table [problem, two models] of the share of right responses, NaN where nobody can tell.

    All that can be judged, if the accuracies lie no more than `CLOSE` apart. Else those that both models answer right
    and those that both answer wrong: there the accuracies are equal, and neither the right nor the wrong are chosen.
    """
    judged = right.dropna()
    if len(judged) < FEWEST_PROBLEMS:
        lacking = (
            f"Accuracy is not known: {len(judged)} of {len(right)} problems could be judged for both models."
        )
        return MatchedProblems(
            right.index, (float("nan"), float("nan")), f"all {len(right)} problems", lacking
        )
    first, second = (float(share) for share in judged.mean())
    shares = f"{first:.1%} and {second:.1%} right"
    everything = MatchedProblems(judged.index, (first, second), f"all {len(judged)} problems ({shares})", "")
    # Rounded: 3 points apart are 3 points, however their difference is written in binary.
    if round(abs(first - second), 9) <= CLOSE:
        return everything
    alike = judged.index[judged.iloc[:, 0] == judged.iloc[:, 1]]
    if len(alike) <= MOST * len(judged) or len(alike) < FEWEST_PROBLEMS:
        lacking = (
            f"Accuracy cannot be matched: {shares}, and only {len(alike)} of {len(judged)} problems are answered right "
            "by both models or wrong by both."
        )
        return everything._replace(lacking=lacking)
    how = (
        f"the {len(alike)} of {len(judged)} problems that both answer right or both wrong (of all, {shares})"
    )
    return MatchedProblems(alike, (first, second), how, "")
