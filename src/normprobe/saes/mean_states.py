"""Mean states of responses, reduced while their tokens are at hand to what A1–A4 and the bound need.

With X̄ the mean reconstruction, R̄ = Σ_{i∈I} z̄_i d_i, B̄ = X̄ − R̄ (decoder bias included) and r̄ = h̄ − X̄, all norms and
inner products follow from z̄ over the kept features, from ⟨X̄, d_i⟩ and from four scalars; so a set I that depends on
both modes (I⁺) can be formed after the states are gone. Sums are in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

SCOPES = ("response", "answer")
CONTRASTED = ("think", "no_think")
SCALARS = ("n_tokens", "h_sq", "h_sq_mean", "norm_mean", "x_sq", "hx", "r_sq_mean")


@dataclass(frozen=True)
class MeanStates:
    """One layer's mean states: scope × response, kept features last. NaN where a response has no token in the scope."""

    activity: Float[np.ndarray, "scope response kept"]  # z̄_i
    projection: Float[np.ndarray, "scope response kept"]  # ⟨X̄, d_i⟩
    scalars: Float[np.ndarray, "scope response scalar"]
    gram: Float[np.ndarray, "kept kept"]

    @classmethod
    def empty(cls, n_responses: int, atoms: Float[np.ndarray, "kept d"]) -> MeanStates:
        shape = (len(SCOPES), n_responses)
        kept = len(atoms)
        return cls(
            np.full((*shape, kept), np.nan),
            np.full((*shape, kept), np.nan),
            np.full((*shape, len(SCALARS)), np.nan),
            atoms.astype(np.float64) @ atoms.astype(np.float64).T,
        )

    def fill(
        self,
        scope: int,
        responses: Int[np.ndarray, " response"],
        mask: Float[torch.Tensor, "response n"],
        states: Float[torch.Tensor, "n d"],
        reconstruction: Float[torch.Tensor, "n d"],
        kept: Float[torch.Tensor, "n kept"],
        atoms: Float[torch.Tensor, "kept d"],
    ) -> None:
        """Reduce some whole responses; mask[r, t] is 1 where token t lies in the scope of response r. All in float64."""
        count = mask.sum(dim=1, keepdim=True)
        average = mask / torch.where(count > 0, count, torch.nan)
        h, x, z = average @ states, average @ reconstruction, average @ kept
        square = states.square().sum(dim=1)
        residual = (states - reconstruction).square().sum(dim=1)
        means = average @ torch.stack([square, square.sqrt(), residual], dim=1)
        self.activity[scope, responses] = z.numpy()
        self.projection[scope, responses] = (x @ atoms.T).numpy()
        columns = [
            count[:, 0],
            h.square().sum(1),
            means[:, 0],
            means[:, 1],
            x.square().sum(1),
            (h * x).sum(1),
            means[:, 2],
        ]
        self.scalars[scope, responses] = torch.stack(columns, dim=1).numpy()

    def rows(
        self,
        scope: int,
        members: Int[np.ndarray, " members"],
        keep: Bool[np.ndarray, "response members"] | None = None,
    ) -> dict[str, Float[np.ndarray, " response"]]:
        """The columns of sums.parquet for the features `members` (`keep`: only where true, the rest counts to B)."""
        z = self.activity[scope][:, members]
        z = z if keep is None else z * keep
        s = dict(zip(SCALARS, self.scalars[scope].T, strict=True))
        own = np.einsum("ri,ij,rj->r", z, self.gram[np.ix_(members, members)], z)
        cross = (z * self.projection[scope][:, members]).sum(axis=1)
        return {
            "n_tokens": s["n_tokens"],
            "z_sum": z.sum(axis=1),
            "z_l1_active": (z > 0).sum(axis=1).astype(float),
            "h_sq": s["h_sq"],
            "h_sq_mean": s["h_sq_mean"],
            "norm_mean": s["norm_mean"],
            "b_sq": s["x_sq"] - 2 * cross + own,
            "rpart_sq": own,
            "br": cross - own,
            "r_sq": s["h_sq"] - 2 * s["hx"] + s["x_sq"],
            "r_sq_mean": s["r_sq_mean"],
        }


def sums_table(
    states: MeanStates, responses: pd.DataFrame, sets: Mapping[str, Int[np.ndarray, " members"]]
) -> pd.DataFrame:
    """sums.parquet of one layer: a row per response with tokens in the scope, scope and feature set.

    The sets of fixed size (`top…`) keep z_sum, n_tokens and norm_mean only. "plus" is I⁺ of THEOREM: for each problem the
    reasoning features with Δ ≥ 0; it exists for problems answered in both modes.
    """
    labels = responses[["problem_id", "split", "mode"]].reset_index(drop=True)
    frames = []
    for i, scope in enumerate(SCOPES):
        present = states.scalars[i, :, 0] > 0
        tables = {name: states.rows(i, members) for name, members in sets.items()}
        plus, known = _plus(states, i, labels, sets["reasoning"])
        tables["plus"] = states.rows(i, sets["reasoning"], plus)
        for name, columns in tables.items():
            table = pd.DataFrame(columns)
            if name.startswith("top"):
                table.loc[:, ~table.columns.isin(["n_tokens", "z_sum", "norm_mean"])] = np.nan
            there = present & known if name == "plus" else present
            frames.append(labels.assign(scope=scope, feature_set=name).join(table)[there])
    table = pd.concat(frames, ignore_index=True)
    return table.astype({"n_tokens": "int64"})


def pairs_table(
    states: MeanStates, responses: pd.DataFrame, reasoning: Int[np.ndarray, " members"]
) -> pd.DataFrame:
    """pairs.parquet of one layer: a row per problem answered in both modes, scope and feature set."""
    labels = responses[["problem_id", "split", "mode"]].reset_index(drop=True)
    think, no_think = _paired(labels)
    frames = []
    for i, scope in enumerate(SCOPES):
        a, b = states.activity[i][think][:, reasoning], states.activity[i][no_think][:, reasoning]
        known = np.isfinite(states.scalars[i, think, 1]) & np.isfinite(states.scalars[i, no_think, 1])
        for name, keep in {"reasoning": np.ones(a.shape, dtype=bool), "plus": a >= b}.items():
            high, low = a * keep, b * keep
            change = high - low
            both, either = ((high > 0) & (low > 0)).sum(axis=1), ((high > 0) | (low > 0)).sum(axis=1)
            table = labels.loc[think, ["problem_id", "split"]].reset_index(drop=True)
            table = table.assign(
                scope=scope,
                feature_set=name,
                s=change.sum(axis=1),
                k_delta=(change != 0).sum(axis=1),
                k_think=(high > 0).sum(axis=1),
                leak=_ratio(low.sum(axis=1), high.sum(axis=1)),
                overlap=_ratio(both, either),
                negative_share=_ratio((change < 0).sum(axis=1), np.full(len(change), change.shape[1])),
            )
            frames.append(table[known])
    return pd.concat(frames, ignore_index=True)


def _paired(labels: pd.DataFrame) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Rows of the think and the no_think response of each problem that has both, in table order."""
    rows = labels.reset_index(names="row").pivot(index="problem_id", columns="mode", values="row")
    both = rows.reindex(columns=list(CONTRASTED)).dropna().sort_values("think").to_numpy(dtype=np.int64)
    return both[:, 0], both[:, 1]


def _plus(
    states: MeanStates, scope: int, labels: pd.DataFrame, reasoning: Int[np.ndarray, " members"]
) -> tuple[Bool[np.ndarray, "response members"], Bool[np.ndarray, " response"]]:
    """For every response the members of its problem's I⁺, and whether that problem has both modes."""
    think, no_think = _paired(labels)
    activity = states.activity[scope][:, reasoning]
    rising = activity[think] >= activity[no_think]
    known = np.isfinite(states.scalars[scope, think, 1]) & np.isfinite(states.scalars[scope, no_think, 1])
    pair = pd.Index(labels["problem_id"].iloc[think]).get_indexer(pd.Index(labels["problem_id"]))
    keep = np.zeros(activity.shape, dtype=bool)
    keep[pair >= 0] = rising[pair[pair >= 0]]
    return keep, (pair >= 0) & known[np.maximum(pair, 0)] if len(known) else np.zeros(len(pair), dtype=bool)


def _ratio(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, " pair"]:
    """a / b in float64; NaN where b is 0."""
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0, dtype=np.float64)
