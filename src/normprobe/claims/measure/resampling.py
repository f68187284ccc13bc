"""Draws: a statistic on the problems as they are, and on resampled problems.

Every statistic of a claim is a vector of draws: entry 0 is its value on the sample itself, the others on resamples. All
statistics of a claim share one set of resamples, so differences between a model and its controls are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.stats.bootstrap import REPLICATES, bootstrap_weights, percentile_interval, weighted_means

Draws = Float[np.ndarray, " draw"]


@dataclass(frozen=True)
class Resampling:
    """How a claim draws: called with a number of problems it says how often each counts in each draw (the first row is
    the sample itself); `rng` is for whatever else is random in a claim."""

    rng: np.random.Generator

    def __call__(self, n_problems: int) -> Float[np.ndarray, "draw problem"]:
        return np.vstack([np.ones((1, n_problems)), bootstrap_weights(n_problems, REPLICATES, self.rng)])


def average(
    weights: Float[np.ndarray, "draw problem"], values: Float[np.ndarray, "problem layer"]
) -> Float[np.ndarray, "draw layer"]:
    """Mean over problems in every draw, problems with NaN left out layer by layer; NaN for a draw that has no other."""
    known = np.isfinite(values)
    sums, counts = (
        weighted_means(weights, part) for part in (np.where(known, values, 0.0), known.astype(float))
    )
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def over_layers(
    named: Mapping[str, Float[np.ndarray, "draw layer"] | None], rows: Sequence[int] | slice = slice(None)
) -> dict[str, Draws | None]:
    """Mean over the layers (or these rows of them) in every draw."""
    return {name: None if of is None else of[:, rows].mean(axis=1) for name, of in named.items()}


def interval(draws: Draws) -> tuple[float, float]:
    """95 % percentile interval of the draws beyond the first."""
    low, high = percentile_interval(draws[1:])
    return float(low), float(high)


def as_text(draws: Draws | None) -> str:
    """A number with its interval, as notes have it: `0.42 [0.31, 0.53]`."""
    if draws is None or np.isnan(draws[0]):
        return "(not computed)"
    low, high = interval(draws)
    return f"{draws[0]:z.2f} [{low:z.2f}, {high:z.2f}]"


def row(
    quantity: str, name: str, draws: Float[np.ndarray, " draw *layer"], layers: Sequence[int] = ()
) -> pd.DataFrame:
    """Tidy rows by layer: quantity, name, layer, estimate, low, high; a number of no single layer at layer −1."""
    if draws.ndim == 1:
        draws, layers = draws[:, None], [-1]
    low, high = percentile_interval(draws[1:])
    columns = {"layer": list(layers), "estimate": draws[0], "low": low, "high": high}
    return pd.DataFrame({"quantity": quantity, "name": name, **columns})


def tidy(
    found: Mapping[str, Mapping[str, np.ndarray | None]],
    layers: Sequence[int] = (),
    *,
    names_first: bool = False,
) -> list[pd.DataFrame]:
    """Draws by quantity and name (or name and quantity) as tidy rows; what could not be computed (None) has none."""
    return [
        row(*((inner, outer) if names_first else (outer, inner)), draws, layers)
        for outer, inside in found.items()
        for inner, draws in inside.items()
        if draws is not None
    ]
