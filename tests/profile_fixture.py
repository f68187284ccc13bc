"""A layer profile of no particular model."""

import numpy as np

from normprobe.layer_profile import QUANTILES, LayerProfile


def profile(spread: float = 0.3) -> LayerProfile:
    """Three layers with log-normal norms around 10, 20 and 30, of no particular model."""
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(0, spread, 4000))[None] * np.array([[10.0], [20.0], [30.0]])
    table = np.quantile(norms, QUANTILES, axis=1).T.tolist()
    tau = (
        np.quantile(norms, 0.75, axis=1) + 1.5 * np.subtract(*np.quantile(norms, [0.75, 0.25], axis=1))
    ).tolist()
    return LayerProfile(1, {}, list(QUANTILES), {"think": table}, {"think": table}, tau, None, [2], 10)
