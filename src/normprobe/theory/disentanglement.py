"""A4, disentanglement: reasoning features are silent without thinking (ρ), the semantic part keeps its length (κ)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from normprobe.theory.ratio import ratio


def leakage(
    think: Float[np.ndarray, "*cell feature"], no_think: Float[np.ndarray, "*cell feature"]
) -> Float[np.ndarray, "*cell"]:
    """ρ = ‖b‖₁/‖a‖₁, activations (≥ 0) of the reasoning features without and with thinking; ∞ where only b fires."""
    return ratio(no_think.sum(axis=-1), think.sum(axis=-1))


def drift(
    b_sq_think: Float[np.ndarray, "*cell"], b_sq_no_think: Float[np.ndarray, "*cell"]
) -> Float[np.ndarray, "*cell"]:
    """κ = |‖B_T‖² − ‖B_N‖²| / ‖B_N‖² of the semantic parts, from squared norms."""
    return ratio(np.abs(np.asarray(b_sq_think, dtype=np.float64) - b_sq_no_think), b_sq_no_think)


def overlap(
    think: Float[np.ndarray, "*cell feature"], no_think: Float[np.ndarray, "*cell feature"]
) -> Float[np.ndarray, "*cell"]:
    """Features active in both modes over features active in either: the paper's "< 3 % overlap", as a share."""
    both = ((think > 0) & (no_think > 0)).sum(axis=-1).astype(np.float64)
    return ratio(both, ((think > 0) | (no_think > 0)).sum(axis=-1).astype(np.float64))
