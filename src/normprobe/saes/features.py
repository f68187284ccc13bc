"""Reasoning features: chosen by a fixed false-discovery rule on problems that are measured nowhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control
from scipy.stats import t as student

FALSE_DISCOVERY_RATE = 0.05


def select_features(
    think: Float[np.ndarray, "problem feature"], no_think: Float[np.ndarray, "problem feature"]
) -> pd.DataFrame:
    """The features of one layer that are more active in thinking, and for each a like one that is not.

    think, no_think: mean activation of each feature over the tokens of each problem's response, in activation units.
    A feature is selected if a one-sided paired t-test over problems has a Benjamini–Hochberg q < 0.05 within the layer
    (arXiv 2606.06188 compares modes too, but does not state its rule). One row per feature: feature, mean_think,
    mean_no_think, delta, p, q, selected, matched.
    """
    difference = think.astype(np.float64) - no_think.astype(np.float64)
    n = len(difference)
    delta = difference.mean(axis=0)
    spread = difference.std(axis=0, ddof=1) / np.sqrt(n)
    # A feature that differs nowhere has no spread: it is no discovery.
    t = np.divide(delta, spread, out=np.zeros_like(delta), where=spread > 0)
    p = np.where(spread > 0, student.sf(t, n - 1), 1.0)
    q = false_discovery_control(p)
    selected = (q < FALSE_DISCOVERY_RATE) & (delta > 0)
    means = think.mean(axis=0, dtype=np.float64), no_think.mean(axis=0, dtype=np.float64)
    return pd.DataFrame(
        {
            "feature": np.arange(len(delta)),
            "mean_think": means[0],
            "mean_no_think": means[1],
            "delta": delta,
            "p": p,
            "q": q,
            "selected": selected,
            "matched": match_features((means[0] + means[1]) / 2, selected),
        }
    )


def match_features(
    activity: Float[np.ndarray, " feature"], selected: Bool[np.ndarray, " feature"]
) -> Bool[np.ndarray, " feature"]:
    """For each selected feature, from the most active on, the unselected one nearest in mean activation, none twice.

    Fewer are matched than selected if the unselected run out.
    """
    matched = np.zeros(len(activity), dtype=bool)
    free = ~selected
    for feature in sorted(np.flatnonzero(selected), key=lambda i: (-activity[i], i)):
        if not free.any():
            break
        candidates = np.flatnonzero(free)
        nearest = candidates[np.argmin(np.abs(activity[candidates] - activity[feature]))]
        matched[nearest], free[nearest] = True, False
    return matched


def top_features(features: pd.DataFrame, n: int) -> Int[np.ndarray, " n"]:
    """The n features of one layer with the smallest p (ties by index): fixed sizes of I, for the sensitivity table."""
    return features.sort_values(["p", "feature"], kind="stable")["feature"].to_numpy()[:n]
