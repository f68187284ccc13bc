"""A2, reconstruction fidelity: ‖r‖ ≤ ε‖h‖ with r = h − SAE(h)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from normprobe.theory.ratio import ratio


def epsilon(
    r_sq: Float[np.ndarray, "*input"], h_sq: Float[np.ndarray, "*input"]
) -> Float[np.ndarray, "*input"]:
    """ε = ‖r‖/‖h‖ of each state, from squared norms. For mean states pass ‖r̄‖² and ‖h̄‖².

    Bias: none for one state. For means over n tokens ‖r̄‖² is too large by tr Cov(r)/n; and yet ε of the mean state is
    mostly far below that of single tokens, whose residuals cancel: say which. Interval: as in `normprobe.theory`.
    """
    return np.sqrt(ratio(r_sq, h_sq))
