"""Activations summed by token id, and how much of them the identity of the token explains. Pure numpy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


class TokenSums:
    """Sums over tokens that can be added and forgotten: n [token id], total [token id, feature], and of all tokens
    squares [feature]."""

    def __init__(self, n_ids: int, n_features: int) -> None:
        self.n = np.zeros(n_ids, dtype=np.int64)
        self.total = np.zeros((n_ids, n_features))
        self.squares = np.zeros(n_features)

    def add(self, ids: Int[np.ndarray, " token"], z: Float[np.ndarray, "token feature"]) -> None:
        """Add tokens and the activations at them."""
        self.n += np.bincount(ids, minlength=len(self.n))
        np.add.at(self.total, ids, z)
        self.squares += np.square(z).sum(axis=0)

    @property
    def mean(self) -> Float[np.ndarray, "id feature"]:
        """Mean activation at each token id; where it never came, the mean over all tokens."""
        n = self.n[:, None]
        return np.where(n > 0, self.total / np.maximum(n, 1), self.total.sum(axis=0) / max(n.sum(), 1))


def explained(fitted: TokenSums, measured: TokenSums) -> Float[np.ndarray, " feature"]:
    """R² of the activations in `measured`, each predicted by the mean in `fitted` of the same token id.

    The two come of different problems, so no activation predicts itself, and a feature that tokens do not explain gets
    a value of at most 0. NaN for an activation that does not vary.
    """
    mean, n = fitted.mean, measured.n[:, None]
    error = measured.squares + (n * mean**2 - 2 * mean * measured.total).sum(axis=0)
    total = measured.squares - measured.total.sum(axis=0) ** 2 / max(n.sum(), 1)
    # Below this the variance is the rounding error of the line above.
    varies = total > 1e-12 * measured.squares
    return np.where(varies, 1 - error / np.where(varies, total, 1), np.nan)
