"""The reductions as arrays [problem, layer]: what A1-A4 and the bound are measured on.

Only the split "measure" is looked at, over whole responses (thought and answer), on *mean states*: the mean of h over a
response's tokens and its parts B, R and r, for which the theorem holds without the spread of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.runs.tables import Tables
from normprobe.theory.bound import Constants, Lengths
from normprobe.theory.constants import delta, drift, epsilon, ratio

_MODES = ("think", "no_think")
_OF_SUMS = ("z_sum", "z_l1_active", "h_sq", "h_sq_mean", "b_sq", "rpart_sq", "br", "r_sq")
_OF_PAIRS = ("k_delta", "overlap")
Array = Float[np.ndarray, "problem layer"]


@dataclass(frozen=True)
class BoundInputs:
    """Bound inputs (problem × layer) of one reader and one feature set.

    constants: the larger of both modes for ε and δ; spread_…: mean ‖h‖² − ‖h̄‖² over tokens; a, b: ‖a‖₁,
    ‖b‖₁, summed activations in think and no_think; k_think, k_delta: features active in think, features with Δ ≠ 0;
    overlap: features active in both modes over features active in either, NaN where none is.
    """

    lengths: Lengths
    constants: Constants
    spread_think: Array
    spread_no_think: Array
    a: Array
    b: Array
    k_think: Array
    k_delta: Array
    overlap: Array

    @property
    def s(self) -> Array:
        """S = ΣΔ."""
        return self.a - self.b


def shared_problems(tables: Tables, readers: Sequence[str]) -> list[str]:
    """Measured problems that every reader has in both modes and all its layers; readers are compared on these alone."""
    sums = _measured(tables.sums)
    sums = sums[(sums["feature_set"] == "reasoning") & sums["mode"].isin(list(_MODES))]
    complete = []
    for reader in readers:
        counts = sums[sums["reader"] == reader].groupby("problem_id").size()
        complete.append(set(counts.index[counts == len(_MODES) * len(tables.layers(reader))]))
    return sorted(set.intersection(*complete)) if complete else []


def read_bound_inputs(
    tables: Tables, reader: str, problems: Sequence[str], feature_set: str = "reasoning"
) -> BoundInputs:
    """The bound inputs of one reader and feature set ("reasoning", or "plus" for I⁺) on these problems."""
    layers = tables.layers(reader)
    grid = pd.MultiIndex.from_product([list(problems), layers])

    def arrays(table: pd.DataFrame, columns: Sequence[str], mode: str | None = None) -> dict[str, Array]:
        rows = _measured(table)
        rows = rows[(rows["reader"] == reader) & (rows["feature_set"] == feature_set)]
        rows = rows if mode is None else rows[rows["mode"] == mode]
        laid = rows.set_index(["problem_id", "layer"]).reindex(grid)[list(columns)].astype(np.float64)
        # Squared norms of differences come out of differences of large numbers: rounding may leave less than 0.
        squares = [name for name in columns if name.endswith("_sq")]
        laid[squares] = laid[squares].clip(lower=0)
        return {name: laid[name].to_numpy().reshape(len(problems), len(layers)) for name in columns}

    think, no_think = (arrays(tables.sums, _OF_SUMS, mode) for mode in _MODES)
    paired = arrays(tables.pairs, _OF_PAIRS)
    both = (think, no_think)
    lengths = Lengths(*(part[column] for column in ("h_sq", "b_sq", "rpart_sq") for part in both))
    constants = Constants(
        epsilon=np.maximum(*(epsilon(part["r_sq"], part["h_sq"]) for part in both)),
        delta=np.maximum(*(delta(part["br"], part["b_sq"], part["rpart_sq"]) for part in both)),
        # Activations are not negative, so a sum over features is the ‖·‖₁ of A4.
        rho=ratio(no_think["z_sum"], think["z_sum"]),
        kappa=drift(lengths.b_think, lengths.b_no_think),
    )
    return BoundInputs(
        lengths,
        constants,
        spread_think=think["h_sq_mean"] - think["h_sq"],
        spread_no_think=no_think["h_sq_mean"] - no_think["h_sq"],
        a=think["z_sum"],
        b=no_think["z_sum"],
        k_think=think["z_l1_active"],
        k_delta=paired["k_delta"],
        overlap=np.where(think["z_sum"] + no_think["z_sum"] > 0, paired["overlap"], np.nan),
    )


def _measured(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["split"] == "measure") & (table["scope"] == "response")]
