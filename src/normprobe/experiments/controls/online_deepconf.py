"""Online DeepConf: stop a sample as soon as the model grows less sure than in most finished ones (arXiv 2508.15260).

From the authors' code (facebookresearch/deepconf): some samples of a problem are written to the end (the warm-up). The
bar is a quantile of their least confident groups: the 90 % one keeps the surest tenth, the 10 % one nine tenths. Any
further sample stops at the first full group of tokens below the bar. Who stays above it, warm-up or not, votes with
its least confident group as the weight.

A sample depends on what it has written and on nothing later, so one that was written to the end and cut afterwards is
the sample that would have been stopped. Ours: half of the samples are the warm-up (16 of 256 there; eight samples give
no quantile otherwise), and a group has `WINDOW` tokens. Not taken: to end the sampling once 95 % of the weight agree,
which the paper has and that code has not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from normprobe.experiments.confidence import WINDOW
from normprobe.policies.lrs import choose, vote

GROUPS, LOWEST = "deepconf_groups", "deepconf_lowest"


def warm_up(n_samples: int) -> int:
    """How many samples are written to the end before there is a bar."""
    return (n_samples + 1) // 2


def confidence_bar(samples: pd.DataFrame, keep: float) -> float:
    """The (1 − keep) quantile of the least confident groups of the warm-up, nats; −∞ if it has no token at all."""
    lowest = samples[LOWEST].to_numpy(dtype=float)[: warm_up(len(samples))]
    finite = lowest[np.isfinite(lowest)]
    return float(np.quantile(finite, 1 - keep)) if len(finite) else -np.inf


def pick_online(samples: pd.DataFrame, keep: float) -> int:
    """The row that the vote elects. samples: of one problem, in order, with answer, n_tokens, `GROUPS` and `LOWEST`.

    If none that may vote has an answer, the surest of them: the problem stays without one.
    """
    lowest = samples[LOWEST].to_numpy(dtype=float)
    stayed = lowest >= confidence_bar(samples, keep)
    answers = [
        str(given) if stays and not pd.isna(given) else None
        for given, stays in zip(samples["answer"], stayed, strict=True)
    ]
    if not any(answer is not None for answer in answers):
        return choose(lowest.tolist())
    return vote(answers, np.where(stayed, lowest, 0.0).tolist())


def tokens_online(samples: pd.DataFrame, keep: float) -> int:
    """The tokens written in all: the warm-up's to the end, of the others those up to where each is stopped."""
    bar, lengths = confidence_bar(samples, keep), samples["n_tokens"].astype(int).tolist()
    first = warm_up(len(samples))
    groups = samples[GROUPS].tolist()[first:]
    return sum(lengths[:first]) + sum(map(stopped, groups, lengths[first:], [bar] * len(groups)))


def stopped(groups: Sequence[float] | np.ndarray, n_tokens: int, bar: float) -> int:
    """The tokens of a sample up to the first full group below the bar, or all. groups: means of its sliding windows."""
    below = np.flatnonzero(np.asarray(groups) < bar)
    return n_tokens if n_tokens < WINDOW or not len(below) else int(below[0]) + WINDOW
