"""Which features get a page: the clearest reasoning features of each layer, and as many controls."""

from __future__ import annotations

import pandas as pd

from normprobe.saes.features import match

REASONING, MATCHED = "reasoning", "matched"


def choose(features: pd.DataFrame, n: int) -> pd.DataFrame:
    """Layer, feature, kind and counterpart of the features that get a page, out of one reader's table of features.

    In each layer these are the first n of I by p, of equal p those of larger delta (kind "reasoning"); and for each of
    them the one of `matched` with the nearest mean activation, without replacement (kind "matched"). Both are each
    other's counterpart; it is missing where a layer has fewer controls.
    """
    activation, pairs, chosen = features["mean_think"] + features["mean_no_think"], {}, []
    for _, rows in features.groupby("layer"):
        first = rows[rows["selected"]].sort_values(["p", "delta"], ascending=[True, False]).index[:n]
        pool = rows.index[rows.index.isin(first) | rows["matched"]]
        controls = pool[match(activation[pool].to_numpy(), pool.isin(first))]
        # `match` serves the most active first.
        served = activation[first].sort_values(ascending=False).index[: len(controls)]
        pairs |= dict(zip(served, controls, strict=True)) | dict(zip(controls, served, strict=True))
        chosen += [*((row, REASONING) for row in first), *((row, MATCHED) for row in controls)]
    index = [row for row, _ in chosen]
    table = features.loc[index, ["layer", "feature"]].assign(kind=[kind for _, kind in chosen])
    other = [features.at[pairs[row], "feature"] if row in pairs else None for row in index]
    return table.assign(counterpart=pd.Series(other, index, dtype="Int64")).reset_index(drop=True)
