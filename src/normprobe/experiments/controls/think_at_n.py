"""Think@n: stop the half of the samples that think less deeply, and vote among the others (arXiv 2602.13517).

Samples are ranked by their deep-thinking ratio, after a prefix or as a whole; those of the higher half are written to
the end, and each has one vote.
"""

from __future__ import annotations

import math

import pandas as pd

from normprobe.experiments.controls.deep_thinking import PREFIX
from normprobe.policies.lrs import rank, vote

KEPT_SHARE = 0.5
"""The paper's η."""


def going_on(samples: pd.DataFrame, score: str) -> list[int]:
    """The rows of the highest score, half of them (rounded up), in order; of equals the first."""
    best = rank(samples[score].astype(float).tolist())
    return sorted(best[: math.ceil(KEPT_SHARE * len(best))])


def pick_deepest(samples: pd.DataFrame, score: str) -> int:
    """The row that the vote elects. samples: of one problem, in order, with answer (missing if there is none)."""
    rows = going_on(samples, score)
    answers = [None if pd.isna(given) else str(given) for given in samples["answer"].iloc[rows]]
    return rows[vote(answers, [1.0] * len(rows))]


def tokens_of_prefixes(samples: pd.DataFrame) -> int:
    """The tokens written in all where the ratio of the prefix decides: all prefixes, and the rest of what goes on."""
    lengths = samples["n_tokens"].to_numpy(dtype=int)
    prefixes = lengths.clip(max=PREFIX)
    return int(prefixes.sum() + (lengths - prefixes)[going_on(samples, "deep_thinking_prefix")].sum())
