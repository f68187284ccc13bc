"""The one table of a null or planted run that is drawn and not measured: a network that only reads answers nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from normprobe.audit.networks import Passage
from normprobe.claims.high_norm_is_causal import CONTROLS, HIGH, PLAIN

PLAIN_ACCURACY, SUPPRESSED = 0.9, 0.6
PLANTED = 0.05


def simulated_suppression(passage: Passage, rng: np.random.Generator, *, high_norm: float) -> pd.DataFrame:
    """experiments/suppression.parquet with independent answers: plain right in 90 %, every control in 60 %, and
    under `high_norm` in that share (60 %: it does not matter which states are suppressed)."""
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
