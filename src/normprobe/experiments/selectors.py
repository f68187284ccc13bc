"""Ways to choose one of several sampled answers: LRS and what it has to beat, all on the same samples."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.experiments.confidence import CONFIDENCES
from normprobe.experiments.controls.deep_thinking import DEEP_THINKING
from normprobe.experiments.controls.latent_trajectory import LATENT_TRAJECTORY
from normprobe.experiments.controls.online_deepconf import GROUPS, pick_online, tokens_online
from normprobe.experiments.controls.think_at_n import pick_deepest, tokens_of_prefixes
from normprobe.policies.lrs import FORMS, choose, vote

Pick = Callable[[pd.DataFrame, int], int]
"""(samples of one problem, rows in order; seed) → the number of the chosen row."""
Spend = Callable[[pd.DataFrame, int], int]
"""(samples of one problem, rows in order; the chosen row) → the tokens of all samples that the choice takes."""

SCORES = (
    *CONFIDENCES,
    *DEEP_THINKING,
    *LATENT_TRAJECTORY,
    *(f"lrs_{form}{per}" for form in FORMS for per in ("", "_per_token")),
)
WEIGHTED = ("lrs_last_third", "lrs_A_per_token", "self_certainty", "deepconf_worst")
"""Scores that also weight a vote; none is ever negative."""
KEPT = (0.1, 0.9)
"""Shares of the surest samples that DeepConf lets vote."""


def _random(samples: pd.DataFrame, seed: int) -> int:
    """One sample, drawn by (seed, problem_id) alone."""
    key = [seed, zlib.crc32(str(samples["problem_id"].iloc[0]).encode())]
    return int(np.random.default_rng(key).integers(len(samples)))


def _oracle(samples: pd.DataFrame, _seed: int) -> int:
    """A right answer if there is one: pass@N, the most that any selector could do."""
    return choose(samples["correct"].astype("boolean").fillna(False).astype(float).tolist())


def _highest(column: str) -> Pick:
    return lambda samples, _seed: choose(samples[column].astype(float).tolist())


def _lowest(column: str) -> Pick:
    return lambda samples, _seed: choose((-samples[column].astype(float)).tolist())


def _weighted(score: str, keep: float = 1.0) -> Pick:
    """A vote weighted by a score, of those whose score reaches the (1 − keep) quantile among samples with an answer."""

    def pick(samples: pd.DataFrame, _seed: int) -> int:
        weights, answers = samples[score].to_numpy(dtype=float), _answers(samples)
        answered = np.array([given is not None for given in answers])
        if not answered.any():
            return 0
        admitted = ~(weights < np.quantile(weights[answered], 1 - keep))  # a NaN is for the vote to refuse
        return vote(
            [given if may else None for given, may in zip(answers, admitted, strict=True)], weights.tolist()
        )

    return pick


def _answers(samples: pd.DataFrame) -> list[str | None]:
    return [None if pd.isna(given) else str(given) for given in samples["answer"]]


SELECTORS: dict[str, Pick] = {
    "random": _random,
    "majority": lambda samples, _seed: vote(_answers(samples), [1.0] * len(samples)),
    "shortest": _lowest("n_tokens"),
    "longest": _highest("n_tokens"),
    "oracle": _oracle,
    "mean_norm": _highest("lrs_A_per_token"),  # free of length
    **{score: _highest(score) for score in SCORES if score != "deep_thinking_prefix"},
    "lt_cumulative_change": _lowest("lt_cumulative_change"),
    "think@n": lambda samples, _seed: pick_deepest(samples, "deep_thinking_prefix"),
    "think@n, whole": lambda samples, _seed: pick_deepest(samples, "deep_thinking_ratio"),
    **{f"vote by {score}": _weighted(score) for score in WEIGHTED},
    **{f"vote by deepconf_worst, top {keep:.0%}": _weighted("deepconf_worst", keep) for keep in KEPT},
    **{
        f"deepconf online, top {keep:.0%}": lambda samples, _seed, keep=keep: pick_online(samples, keep)
        for keep in KEPT
    },
}
"""By name. Ties go to the sample that comes first; a vote never elects a missing answer if any sample that may vote has
one. Scores are used as they are and the highest wins, of the cumulative change the lowest, as its authors have it: no
sign is fitted. `lrs_scores`, `confidences` and the files of `controls` define them."""

SPENT: dict[str, Spend] = {
    "random": lambda samples, picked: int(samples["n_tokens"].iloc[picked]),
    "think@n": lambda samples, _picked: tokens_of_prefixes(samples),
    **{
        f"deepconf online, top {keep:.0%}": lambda samples, _picked, keep=keep: tokens_online(samples, keep)
        for keep in KEPT
    },
}
"""What those take that leave samples unwritten or stop them. The others need every sample to its end."""


def select_all(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The choice of every selector among the same samples: one row per problem and selector.

    samples: one row per problem_id and sample, with answer (missing if there is none), correct, n_tokens, the columns
    `SCORES` and the list of `group_confidences`. Returns selector, problem_id, sample, answer, correct and tokens
    (those that the choice takes, of all samples together); problems in the order they come.

    Raises NormprobeError for missing columns, or two rows of the same problem and sample.
    """
    needed = ("problem_id", "sample", "answer", "correct", "n_tokens", GROUPS, *SCORES)
    if missing := [column for column in needed if column not in samples]:
        raise NormprobeError(
            f"expected samples with the columns {', '.join(needed)}, got none of {', '.join(missing)}; score them first"
        )
    if samples.duplicated(["problem_id", "sample"]).any():
        raise NormprobeError(
            "expected one row per problem_id and sample, got several of some; give each sample a number"
        )
    numbered = samples.reset_index(drop=True)
    chosen: list[tuple[str, int, int]] = []  # selector, row, tokens
    for _, group in numbered.groupby("problem_id", sort=False):
        group = group.sort_values("sample")
        for name, pick in SELECTORS.items():
            picked = pick(group, seed)
            spent = SPENT[name](group, picked) if name in SPENT else int(group["n_tokens"].sum())
            chosen.append((name, group.index[picked], spent))
    rows = [row for _, row, _ in chosen]
    table = numbered.loc[rows, ["problem_id", "sample", "answer", "correct"]].reset_index(drop=True)
    table.insert(0, "selector", [name for name, _, _ in chosen])
    return table.assign(tokens=[tokens for _, _, tokens in chosen])
