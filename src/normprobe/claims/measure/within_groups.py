"""Rank statistics within groups of tokens (mostly: the tokens of one problem), all layers and groups at once.

`group` numbers each token's group from 0. Nothing here compares tokens of different groups.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Num

# Below this share of what there was nothing is left but rounding.
_NOTHING_LEFT = 1e-9


def _totals(
    values: Num[np.ndarray, "layer token"], group: Int[np.ndarray, " token"], n_groups: int
) -> Float[np.ndarray, "layer group"]:
    sums = np.stack([np.bincount(group, weights=row, minlength=n_groups) for row in values])
    return sums.astype(float)  # bincount counts in integers where there is no token


def ranks_within(
    values: Float[np.ndarray, "layer token"], group: Int[np.ndarray, " token"]
) -> Float[np.ndarray, "layer token"]:
    """Mid-ranks (1 = lowest) among the tokens of the same group, layer by layer."""
    return pd.DataFrame(values.T).groupby(group).rank().to_numpy(dtype=float).T


def centred_within(
    values: Float[np.ndarray, "layer token"], group: Int[np.ndarray, " token"]
) -> Float[np.ndarray, "layer token"]:
    """Each value less the mean of its group; exactly 0 where it equals that mean, so that ranks tie there."""
    n_groups = int(group.max(initial=-1)) + 1
    count = np.bincount(group, minlength=n_groups).clip(min=1)
    rest = values - (_totals(values, group, n_groups) / count)[:, group]
    return np.where(np.abs(rest) > _NOTHING_LEFT * np.abs(values), rest, 0.0)


def residuals_within(
    values: Float[np.ndarray, "layer token"],
    covariates: Float[np.ndarray, "covariate token"],
    group: Int[np.ndarray, " token"],
) -> Float[np.ndarray, "layer token"]:
    """What least squares on the covariates (and a constant) leaves of the values, fitted in each group and layer.

    0 in groups where nothing is left. Gram-Schmidt: each covariate is first freed of the ones before it.
    """
    n_groups = int(group.max(initial=-1)) + 1
    rest = centred_within(values, group)
    whole = _totals(rest**2, group, n_groups)
    for index, covariate in enumerate(covariates):
        direction = residuals_within(covariate[None], covariates[:index], group)
        length = _totals(direction**2, group, n_groups)
        product = _totals(rest * direction, group, n_groups)
        slope = np.divide(product, length, out=np.zeros_like(product), where=length > 0)
        rest = rest - slope[:, group] * direction
    left = _totals(rest**2, group, n_groups) > _NOTHING_LEFT * whole
    return np.where(left[:, group], rest, 0.0)


def correlation_within(
    x: Float[np.ndarray, "#layer token"],
    y: Float[np.ndarray, "#layer token"],
    group: Int[np.ndarray, " token"],
    n_groups: int,
) -> Float[np.ndarray, "group layer"]:
    """Pearson's correlation over each group's tokens (Spearman's ρ, given ranks within groups).

    NaN for a group in which one of the two is constant, or that has no tokens: nothing can correlate there, and a 0
    would count as a measured absence of correlation.
    """
    x, y = centred_within(x, group), centred_within(y, group)
    covariance = _totals(x * y, group, n_groups)
    scale = np.sqrt(_totals(x * x, group, n_groups) * _totals(y * y, group, n_groups))
    return np.divide(covariance, scale, out=np.full_like(covariance, np.nan), where=scale > 0).T


def auroc_within(
    scores: Float[np.ndarray, "layer token"],
    positive: Bool[np.ndarray, " token"],
    group: Int[np.ndarray, " token"],
    problem: Int[np.ndarray, " token"],
    n_problems: int,
) -> Float[np.ndarray, "problem layer"]:
    """AUROC from pairs within groups (each inside one problem), pooled over a problem's groups.

    NaN for a problem without a pair, or whose scores are all the same: 0.5 would be ties alone.
    """
    ranks = ranks_within(scores, group)
    n_groups = int(group.max(initial=-1)) + 1
    n_positive, n_all = (np.bincount(of, minlength=n_groups) for of in (group[positive], group))
    owner = np.zeros(n_groups, dtype=np.int64)
    owner[group] = problem

    # Mann-Whitney: the positives' rank sum less the least that it can be counts the pairs won, ties as halves.
    won = _totals(ranks[:, positive], group[positive], n_groups) - n_positive * (n_positive + 1) / 2
    won = _totals(won, owner, n_problems)
    pairs = _totals(n_positive[None] * (n_all - n_positive), owner, n_problems)
    differs = _totals(np.abs(centred_within(scores, problem)), problem, n_problems) > 0
    return np.divide(won, pairs, out=np.full_like(won, np.nan), where=differs & (pairs > 0)).T
