"""The suppression table of a null or planted run: drawn at random, since a network that only reads gives no answers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from normprobe.audit.networks import Passage
from normprobe.claims.high_norm_is_causal import CONTROLS, HIGH, PLAIN

PLAIN_ACCURACY, SUPPRESSED = 0.9, 0.6
PLANTED = 0.05


def simulated_suppression(passage: Passage, rng: np.random.Generator, *, high_norm: float) -> pd.DataFrame:
    """Independent answers in the columns of experiments/suppression.parquet.

    The share of right ones is 90 % for plain, 60 % for every control, and `high_norm` where high-norm states are
    suppressed (60 %: it makes no difference which states are suppressed).
    """
    problems = passage.problems.loc[passage.problems["split"] == "measure", "problem_id"]
    shares = {PLAIN: PLAIN_ACCURACY, HIGH: high_norm, **dict.fromkeys(CONTROLS, SUPPRESSED)}
    treatments = [
        pd.DataFrame(
            {
                "problem_id": problems,
                "treatment": treatment,
                "mode": "think",
                "factor": 0.1,
                "correct": pd.array(rng.random(len(problems)) < share, dtype="boolean"),
                "n_tokens": 20,
                "n_suppressed": 0 if treatment == PLAIN else 6,
                "delta_norm": 1.0,
            }
        )
        for treatment, share in shares.items()
    ]
    return pd.concat(treatments, ignore_index=True)
