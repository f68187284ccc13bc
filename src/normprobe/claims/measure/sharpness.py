"""How sharply a curve over layers rises late: sharp is flat and then a spike, gradual a rise over all layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.claims.measure.contrast import ByLayer, Contrast
from normprobe.claims.measure.measured_tokens import late_layers, middle_layers
from normprobe.claims.measure.resampling import Draws, average

MEANS = ("norm_think", "norm_no_think", "z_think", "z_no_think")


def late_share(curve: ByLayer, late: Sequence[int], least: float) -> Draws:
    """The rise over the late layers (from the last layer before them on) as a share of the curve's whole movement, up
    and down: Σ_late Δ / max(Σ |Δ|, least), in [−1, 1].

    A rise that is even over all layers gives the late layers' share of the steps, one that comes late only 1. Noise
    cancels in the numerator and not in the denominator, and a curve that moves by less than `least` has next to none;
    the share of the *largest* steps, wherever they are, would be high for noise.
    """
    steps = np.diff(curve, axis=1)
    return steps[:, late[0] - 1 :].sum(axis=1) / np.maximum(np.abs(steps).sum(axis=1), least)


class ReadRun:
    """What one network shows, reading the responses of one run, in every draw: means by layer, and curves of them.

    rows: of paradigm/curves.parquet, one paradigm, subject and scope. layers: those that have dictionaries and codes.
    """

    def __init__(
        self, rows: pd.DataFrame, problems: pd.Index, weights: Float[np.ndarray, "draw problem"]
    ) -> None:
        wide = rows.pivot(index="problem_id", columns="layer", values=list(MEANS)).reindex(problems)
        values = {name: wide[name].to_numpy(dtype=float) for name in MEANS}
        self._mean = {name: average(weights, of) for name, of in values.items()}
        self.depth = values["norm_think"].shape[1]
        self.layers = [int(layer) for layer in np.flatnonzero(np.isfinite(values["z_think"]).any(axis=0))]
        self.late = late_layers(self.layers, self.depth)
        self.middle = middle_layers(self.layers, self.depth)

    @property
    def features(self) -> Contrast | None:
        """The reasoning features in thinking and without it; None where none were read in both parts of the layers."""
        if not (self.late and self.middle):
            return None
        z_high, z_low = (self._mean[name][:, self.layers] for name in MEANS[2:])
        n_high, n_low = (self._mean[name][:, self.layers] for name in MEANS[:2])
        return Contrast.of(z_high, z_low, n_high, n_low, fires=bool((z_high + z_low).any()))

    @property
    def spike(self) -> ByLayer | None:
        """ΣΔz per unit norm, in units of the gross activation that a rise is measured in; None as `features`."""
        if (features := self.features) is None:
            return None
        scale = features.scale(self.late, self.middle)
        return features.difference / np.where(scale > 0, scale, np.nan)[:, None]

    @property
    def amplification(self) -> ByLayer:
        """log(mean norm in think / no_think)."""
        return np.log(self._mean["norm_think"] / self._mean["norm_no_think"])

    def growth(self, base: ReadRun) -> ByLayer:
        """log(mean norm in think / the base's), both reading the same tokens."""
        return np.log(self._mean["norm_think"] / base._mean["norm_think"])
