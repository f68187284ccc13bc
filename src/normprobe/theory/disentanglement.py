"""A4, disentanglement: reasoning features are silent without thinking (ρ), the semantic part keeps its length (κ)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from normprobe.theory.ratio import ratio


def leakage(
    think: Float[np.ndarray, "*input feature"], no_think: Float[np.ndarray, "*input feature"]
) -> Float[np.ndarray, "*input"]:
    """ρ = ‖b‖₁/‖a‖₁, activations (≥ 0) of the reasoning features without and with thinking; ∞ where only b fires.

    Bias: a ratio of two means over n tokens is too large by terms of order 1/n (1/x is convex). If I was selected for
    a large a − b on the same problems, ρ is too small: select on others. Over problems, the ratio of the means is not
    the mean of the ratios, and the bound needs the ratio of each problem. Interval: as in `normprobe.theory`.
    """
    return ratio(no_think.sum(axis=-1), think.sum(axis=-1))


def drift(
    b_sq_think: Float[np.ndarray, "*input"], b_sq_no_think: Float[np.ndarray, "*input"]
) -> Float[np.ndarray, "*input"]:
    """κ = |‖B_T‖² − ‖B_N‖²| / ‖B_N‖² of the semantic parts, from squared norms.

    Bias: a small κ comes out too large, as an absolute value of a noisy difference; and ‖B‖² of a mean over n tokens is
    too large by tr Cov(B)/n, which differs between modes of different length. Interval: as in `normprobe.theory`.
    """
    return ratio(np.abs(np.asarray(b_sq_think, dtype=np.float64) - b_sq_no_think), b_sq_no_think)


def overlap(
    think: Float[np.ndarray, "*input feature"], no_think: Float[np.ndarray, "*input feature"]
) -> Float[np.ndarray, "*input"]:
    """Features active in both modes over features active in either: the paper's "< 3 % overlap", as a share.

    Bias: one token makes a feature active, so this grows with the number of tokens and compares only responses of one
    length. The bound does not use it: ρ is what it needs. Interval: as in `normprobe.theory`.
    """
    both = ((think > 0) & (no_think > 0)).sum(axis=-1).astype(np.float64)
    return ratio(both, ((think > 0) | (no_think > 0)).sum(axis=-1).astype(np.float64))
