"""A2, reconstruction fidelity: ‖r‖ ≤ ε‖h‖ with r = h − SAE(h)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from normprobe.theory.ratio import ratio


def epsilon(r_sq: Float[np.ndarray, "*cell"], h_sq: Float[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
    """ε = ‖r‖/‖h‖ of each state, from squared norms. For mean states pass ‖r̄‖² and ‖h̄‖².

    Bias: none for one state. For means over n tokens ‖r̄‖² is too large by tr Cov(r)/n; and yet ε of the mean state is
    mostly far below that of single tokens, whose residuals cancel: say which. Interval: as in `normprobe.theory`.
    """
    return np.sqrt(ratio(r_sq, h_sq))


def epsilon_from_r2(r2: float, variance_share: float) -> float:
    """The ε that a variance explained allows on average: ε² = (1 − R²)·Var(h)/E‖h‖².

    variance_share: Var(h)/E‖h‖² in [0, 1]; at 1 an R² of 0.95 means ε = √0.05 ≈ 0.22, not 0.05.

    Bias: this is √(Σ‖r‖²/Σ‖h‖²) over states, and the ε of A2 must cover *every* state: it is larger, unless all are
    fitted alike. Massive activations make E‖h‖² large, and this small. Interval: as in `normprobe.theory`, for R².
    """
    return float(np.sqrt((1 - r2) * variance_share))
