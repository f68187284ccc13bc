"""Plain words for the names that tables hold: what a reader sees in reports, figures and pages, from one place.

Tables, evidence and CSV files keep the names themselves: programs read those.
"""

from __future__ import annotations

import re

LABELS = {
    # Treatments of the suppression experiment.
    "high_norm": "high-norm states",
    "low_norm": "low-norm states",
    "random_matched": "random states moved as far",
    "random_same_factor": "random states at the same factor",
    "class_matched": "tokens of the same kind",
    "direction_only": "norm set to the median",
    "top10": "highest tenth",
    "bottom10": "lowest tenth",
    "random10": "random tenth",
    "random10_same_factor": "random tenth at the same factor",
    # Settings of the methods.
    "at_peaks": "at peaks",
    "low_streak": "after a low streak",
    "blow_up": "window's end",
    "max_passes": "passes at most",
    # Selectors of one of several answers.
    "mean_norm": "mean norm",
    "mean_logprob": "mean log-probability",
    "self_certainty": "self-certainty",
    "deepconf online": "DeepConf online",
    "deepconf_mean": "DeepConf mean",
    "deepconf_worst": "DeepConf worst windows",
    "deepconf_lowest": "DeepConf lowest window",
    "deepconf_tail": "DeepConf end",
    "deep_thinking": "deep-thinking ratio",
    "deep_thinking_ratio": "deep-thinking ratio",
    "lt_aligned": "latent trajectory",
    "lt_net_change": "latent trajectory: net change",
    "lt_cumulative_change": "latent trajectory: cumulative change",
    "lt_aligned_change": "latent trajectory: aligned change",
    **{f"lrs_{form}": f"LRS {form}" for form in "ABCD"},
    **{f"lrs_{form}_per_token": f"LRS {form} per token" for form in "ABCD"},
    "lrs_last_third": "LRS of the last third",
    "lrs_last_third_per_token": "LRS of the last third per token",
}
"""By the name in the tables, which stands for itself where it is plain words already."""
_NAME = re.compile(rf"\b(?:{'|'.join(map(re.escape, LABELS))})\b")


def in_words(text: str) -> str:
    """The text with each name of `LABELS` in it as its words: "vote by lrs_A" as "vote by LRS A"."""
    return _NAME.sub(lambda found: LABELS[found[0]], text)
