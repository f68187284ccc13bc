"""A set of features in thinking and without it, layer by layer: their contrast, and how far it rises late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from normprobe.claims.measure.resampling import Draws

ByLayer = Float[np.ndarray, "draw layer"]


class Contrast(NamedTuple):
    """One set of features in thinking and without it, at the layers that have dictionaries."""

    raw: ByLayer  # ΣΔz, activation units
    difference: ByLayer  # ΣΔz per unit norm (D)
    gross: ByLayer  # Σ of both modes per unit norm (G)
    fires: bool  # at any measured token, in whatever mode

    @classmethod
    def of(
        cls, z_high: ByLayer, z_low: ByLayer, norm_high: ByLayer, norm_low: ByLayer, *, fires: bool
    ) -> Contrast:
        """From the mean summed codes and the mean norms in thinking (high) and without it (low)."""
        scale = (norm_high + norm_low) / 2
        return cls(z_high - z_low, (z_high - z_low) / scale, (z_high + z_low) / scale, fires)

    def scale(self, late: Sequence[int], middle: Sequence[int]) -> Draws:
        """Gross activation per unit norm in the late and in the middle layers, added."""
        return self.gross[:, late].mean(axis=1) + self.gross[:, middle].mean(axis=1)

    def rise(self, late: Sequence[int], middle: Sequence[int]) -> Draws:
        """(D late − D middle) / (G late + G middle), in [−1, 1]; 0 for features that fire elsewhere only (not on
        filler, say), NaN if nowhere."""
        rise = self.difference[:, late].mean(axis=1) - self.difference[:, middle].mean(axis=1)
        scale = self.scale(late, middle)
        return np.divide(rise, scale, out=np.full_like(rise, 0.0 if self.fires else np.nan), where=scale != 0)
