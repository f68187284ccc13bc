"""Reasoning features: which features of a dictionary are more active when the model thinks. Pure numpy.

A feature belongs to I if, over the problems of the split "select", its mean activation over the think response
exceeds that over the no_think response: one-sided paired t-test, problems as units, Benjamini-Hochberg within the
layer (q < 0.05). The rule is fixed, so |I| is an outcome; the measurement split plays no part.

A control has no |I| of its own. Where the rule finds little or nothing in it (an untrained twin), its Σz would be that
of few features or exactly 0, and a claim would exceed it whatever the model does. So it reads as many features as the
model has in I in that layer: those of largest t in the same test, significant or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from normprobe.errors import NormprobeError

FALSE_DISCOVERY_RATE = 0.05


class PairedMoments:
    """What the test needs, summed over problems, so that problems can be added and forgotten: arrays [layer,
    feature]."""

    def __init__(self, n_layers: int, width: int) -> None:
        self.n = 0
        self._think = np.zeros((n_layers, width))
        self._no_think = np.zeros((n_layers, width))
        self._squares = np.zeros((n_layers, width))

    def add(
        self,
        think: Float[np.ndarray, "layer problem feature"],
        no_think: Float[np.ndarray, "layer problem feature"],
    ) -> None:
        """Add problems, given each one's mean activations over its response in either mode."""
        self.n += think.shape[1]
        self._think += think.sum(axis=1)
        self._no_think += no_think.sum(axis=1)
        self._squares += np.square(think - no_think).sum(axis=1)

    def table(self, layers: Sequence[int], sizes: Sequence[int] | None = None) -> pd.DataFrame:
        """One row per layer and feature: layer, feature, mean_think, mean_no_think, delta, p, q, selected, matched.

        sizes: of a control, how many features the model selects in each layer; fewer are selected where fewer fire.
        Raises NormprobeError for fewer than two problems.
        """
        if self.n < 2:
            raise NormprobeError(
                f"expected at least 2 problems answered in think and no_think to select features on, got {self.n}; "
                "give more problems"
            )
        frames = []
        means = (self._think / self.n, self._no_think / self.n)
        of_layers = zip(layers, *means, self._squares, sizes or [None] * len(layers), strict=True)
        for layer, think, no_think, squares, size in of_layers:
            delta = think - no_think
            t = paired_t(delta, squares, self.n)
            p = one_sided_p(t, self.n)
            q = stats.false_discovery_control(p)
            selected = (q < FALSE_DISCOVERY_RATE) & (delta > 0) if size is None else largest(t, size)
            matched = np.zeros(len(delta), dtype=bool)
            matched[match((think + no_think) / 2, selected)] = True
            tests = {"mean_think": think, "mean_no_think": no_think, "delta": delta, "p": p, "q": q}
            sets = {"selected": selected, "matched": matched}
            frames.append(pd.DataFrame({"layer": layer, "feature": np.arange(len(delta)), **tests, **sets}))
        return pd.concat(frames, ignore_index=True)


def paired_t(
    mean: Float[np.ndarray, " feature"], squares: Float[np.ndarray, " feature"], n: int
) -> Float[np.ndarray, " feature"]:
    """Student's t of n paired differences, from their mean and sum of squares; ±∞ where they do not vary, and NaN where
    all are 0 (a feature that never fires)."""
    variance = np.maximum(squares - n * mean**2, 0) / (n - 1)
    # Below this the variance is the rounding error of the line above.
    variance[variance <= 1e-12 * squares / n] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return mean / np.sqrt(variance / n)


def one_sided_p(t: Float[np.ndarray, " feature"], n: int) -> Float[np.ndarray, " feature"]:
    """P of the paired t-test on n differences that their mean is > 0; 1 where there is no t."""
    return np.where(np.isnan(t), 1.0, stats.t.sf(t, n - 1))


def largest(t: Float[np.ndarray, " feature"], n: int) -> Bool[np.ndarray, " feature"]:
    """The n features of largest t, the lower index first among equals; all that have a t if those are fewer."""
    chosen = np.zeros(len(t), dtype=bool)
    chosen[np.argsort(-t, kind="stable")[: min(n, (~np.isnan(t)).sum())]] = True
    return chosen


def match(
    activation: Float[np.ndarray, " feature"], selected: Bool[np.ndarray, " feature"]
) -> Int[np.ndarray, " matched"]:
    """For each selected feature, the most active first, the nearest other one in mean activation not yet taken.

    Greedy, without replacement, never a selected one; the lower index wins a tie. As many as there are selected ones,
    or all the others if those are fewer.
    """
    wanted = activation[selected]
    free = np.flatnonzero(~selected)
    taken = []
    for value in np.sort(wanted)[::-1][: len(free)]:
        nearest = int(np.argmin(np.abs(activation[free] - value)))
        taken.append(free[nearest])
        free = np.delete(free, nearest)
    return np.array(taken, dtype=np.int64)


def feature_sets(
    features: pd.DataFrame, tops: Mapping[str, int]
) -> dict[str, Bool[np.ndarray, "layer feature"]]:
    """The sets of a reader's feature table as masks, layers ascending: "reasoning", "matched", and for each of `tops`
    the so many features of smallest p with delta > 0 (of equal p those of larger delta): how much hangs on |I|."""
    by_layer = [rows.sort_values("feature") for _, rows in features.groupby("layer")]

    def column(name: str) -> np.ndarray:
        return np.stack([rows[name].to_numpy() for rows in by_layer])

    p, delta = column("p"), column("delta")
    rank = np.argsort(np.lexsort((-delta, p), axis=1), axis=1)
    sets = {name: (rank < n) & (delta > 0) for name, n in tops.items()}
    return {"reasoning": column("selected"), "matched": column("matched"), **sets}
