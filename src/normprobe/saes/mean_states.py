"""What A1–A4 and the bound need of mean states, in float64 numpy: sums.parquet and pairs.parquet, one layer at a
time.

h̄ = B̄ + R̄ + r̄ with R̄ = Σ_{i∈I} z̄_i d_i, B̄ = b_dec + Σ_{i∉I} z̄_i d_i, and r̄ what the dictionary leaves
(THEOREM.md); means are over the tokens of a scope, for each problem and mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from normprobe.theory.constants import leakage, overlap, ratio
from normprobe.thinking_formats import MODES

THINK, NO_THINK = MODES.index("think"), MODES.index("no_think")
Values = Float[np.ndarray, "problem mode"]
Mask = Bool[np.ndarray, "#problem #mode feature"]


@dataclass(frozen=True)
class MeanStates:
    """One layer and scope: means over the scope's tokens of each problem and mode, NaN where there is none.

    z, h: mean codes and states; scalars: n_tokens, and the means h_sq_mean of ‖h‖², norm_mean of ‖h‖, r_sq_mean of
    ‖r‖².
    """

    z: Float[np.ndarray, "problem mode feature"]
    h: Float[np.ndarray, "problem mode d"]
    scalars: dict[str, Values]

    @classmethod
    def of_sums(
        cls,
        z: Float[np.ndarray, "problem mode feature"],
        h: Float[np.ndarray, "problem mode d"],
        scalars: Mapping[str, Values],
        n_tokens: Int[np.ndarray, "problem mode"],
    ) -> MeanStates:
        """From sums over tokens; `scalars` as `normprobe.saes.codes.SCALARS` names them."""
        n = np.where(n_tokens > 0, n_tokens, np.nan)
        names = {"h_sq": "h_sq_mean", "norm": "norm_mean", "r_sq": "r_sq_mean"}
        means = {mean: scalars[name] / n for name, mean in names.items()}
        return cls(z.astype(np.float64) / n[..., None], h / n[..., None], {"n_tokens": n, **means})

    @property
    def answered(self) -> Bool[np.ndarray, "problem mode"]:
        """Where the scope has a token."""
        return np.isfinite(self.scalars["n_tokens"])

    @property
    def paired(self) -> Bool[np.ndarray, " problem"]:
        """Problems answered both in think and in no_think."""
        return self.answered[:, THINK] & self.answered[:, NO_THINK]

    def plus(self, reasoning: Bool[np.ndarray, " feature"]) -> Bool[np.ndarray, "problem 1 feature"]:
        """I⁺ of each problem: the reasoning features with Δ ≥ 0 (THEOREM.md); empty for problems without a pair."""
        return ((self.z[:, THINK] >= self.z[:, NO_THINK]) & reasoning)[:, None]

    def parts(
        self, members: Mask, atoms: Float[np.ndarray, "feature d"], bias: Float[np.ndarray, " d"]
    ) -> dict[str, Values]:
        """z_sum, z_l1_active, ‖h̄‖², ‖B̄‖², ‖R̄‖², ⟨B̄, R̄⟩ and ‖r̄‖² when `members` make up R and the rest B."""
        z = self.z * members
        x = self.z @ atoms + bias
        R = z @ atoms
        B = x - R
        return {
            "z_sum": z.sum(axis=-1),
            "z_l1_active": (z > 0).sum(axis=-1).astype(np.float64),
            "h_sq": _square(self.h),
            "b_sq": _square(B),
            "rpart_sq": _square(R),
            "br": (B * R).sum(axis=-1),
            "r_sq": _square(self.h - x),
        }


def sums_table(
    means: MeanStates,
    sets: Mapping[str, Bool[np.ndarray, " feature"]],
    atoms: Float[np.ndarray, "feature d"],
    bias: Float[np.ndarray, " d"],
) -> pd.DataFrame:
    """One row per problem (a number), mode and feature set that has tokens: "plus" only for pairs, and for sets of
    fixed size ("top…") n_tokens, z_sum and norm_mean alone, the rest NaN."""
    masks: dict[str, Mask] = {name: members[None, None] for name, members in sets.items()}
    masks["plus"] = means.plus(sets["reasoning"])
    parts: list[dict[str, np.ndarray]] = []
    for name, members in masks.items():
        if name.startswith("top"):
            columns = {column: means.scalars[column] for column in ("n_tokens", "norm_mean")}
            columns["z_sum"] = (means.z * members).sum(axis=-1)
        else:
            columns = means.scalars | means.parts(members, atoms, bias)
        there = means.answered & means.paired[:, None] if name == "plus" else means.answered
        problem, mode = np.nonzero(there)
        part = {"problem": problem, "mode": np.array(MODES, dtype=object)[mode]}
        part |= {column: values[there] for column, values in columns.items()}
        parts.append(part | {"feature_set": np.full(len(problem), name, dtype=object)})
    # One table of whole columns: a table per feature set, joined afterwards, takes four times as long.
    whole = max(parts, key=len)
    table = {
        column: np.concatenate([part.get(column, np.full(len(part["problem"]), np.nan)) for part in parts])
        for column in whole
    }
    return pd.DataFrame(table).astype({"n_tokens": "int64", "mode": "str", "feature_set": "str"})


def pairs_table(means: MeanStates, reasoning: Bool[np.ndarray, " feature"]) -> pd.DataFrame:
    """One row per pair and feature set ("reasoning", "plus"): s = ΣΔ, k_delta = |supp Δ|, k_think = |supp a|, leak =
    ‖b‖₁/‖a‖₁, overlap (active in both ÷ active in either), negative_share of I with Δ < 0."""
    paired = means.paired
    frames = []
    masks: dict[str, Mask] = {"reasoning": reasoning[None, None], "plus": means.plus(reasoning)}
    for name, members in masks.items():
        members = np.broadcast_to(members, (len(paired), 1, len(reasoning)))[paired, 0]
        a, b = (means.z[paired, mode] * members for mode in (THINK, NO_THINK))
        delta = a - b
        columns = {
            "problem": np.flatnonzero(paired),
            "s": delta.sum(axis=1),
            "k_delta": (delta != 0).sum(axis=1),
            "k_think": (a > 0).sum(axis=1),
            "leak": leakage(a, b),
            "overlap": overlap(a, b),
            "negative_share": ratio((delta < 0).sum(axis=1), members.sum(axis=1)),
        }
        frames.append(pd.DataFrame(columns).assign(feature_set=name))
    return pd.concat(frames, ignore_index=True)


def _square(vectors: Float[np.ndarray, "problem mode d"]) -> Values:
    return np.einsum("pmd,pmd->pm", vectors, vectors)
