"""A3, separation of the semantic and the reasoning part: |⟨B, R⟩| ≤ δ‖B‖‖R‖."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from normprobe.theory.ratio import ratio


def delta(
    br: Float[np.ndarray, "*input"], b_sq: Float[np.ndarray, "*input"], r_sq: Float[np.ndarray, "*input"]
) -> Float[np.ndarray, "*input"]:
    """δ = |cos(B, R)| of each state, from ⟨B, R⟩, ‖B‖² and ‖R‖²; 0 where a part is absent.

    Bias: unrelated directions in d dimensions have sqrt(2/(pi d)) on average, not 0 (`random_baseline`), so a small δ
    comes out too large; a large one too small, as noise dilutes a cosine. Interval: as in `normprobe.theory`.
    """
    product = np.asarray(b_sq, dtype=np.float64) * np.asarray(r_sq, dtype=np.float64)
    return np.where(product > 0, ratio(np.abs(br), np.sqrt(product)), 0.0)
