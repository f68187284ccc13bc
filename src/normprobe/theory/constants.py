"""The constants of A2 (ε, reconstruction), A3 (δ, separation) and A4 (ρ and κ, disentanglement) of each bound input.

Interval of all of them: as in `normprobe.theory`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

PerInput = Float[np.ndarray, "*input"]
PerFeature = Float[np.ndarray, "*input feature"]


def epsilon(r_sq: PerInput, h_sq: PerInput) -> PerInput:
    """A2: ε = ‖r‖/‖h‖ of each state, r = h − SAE(h), from squared norms. For mean states pass ‖r̄‖² and ‖h̄‖².

    Bias: none for one state. For means over n tokens ‖r̄‖² is too large by tr Cov(r)/n; and yet ε of the mean state is
    mostly far below that of single tokens, whose residuals cancel: say which.
    """
    return np.sqrt(ratio(r_sq, h_sq))


def delta(br: PerInput, b_sq: PerInput, r_sq: PerInput) -> PerInput:
    """A3: δ = |cos(B, R)| of each state, from ⟨B, R⟩, ‖B‖² and ‖R‖²; 0 where a part is absent.

    Bias: unrelated directions in d dimensions have sqrt(2/(pi d)) on average, not 0 (`random_baseline`), so a small δ
    comes out too large; a large one too small, as noise dilutes a cosine.
    """
    product = np.asarray(b_sq, dtype=np.float64) * np.asarray(r_sq, dtype=np.float64)
    return np.where(product > 0, ratio(np.abs(br), np.sqrt(product)), 0.0)


def leakage(think: PerFeature, no_think: PerFeature) -> PerInput:
    """A4: ρ = ‖b‖₁/‖a‖₁, activations (≥ 0) of the reasoning features without and with thinking; ∞ where only b fires.

    Bias: a ratio of two means over n tokens is too large by terms of order 1/n (1/x is convex). If I was selected for
    a large a − b on the same problems, ρ is too small: select on others. Over problems, the ratio of the means is not
    the mean of the ratios, and the bound needs the ratio of each problem.
    """
    return ratio(no_think.sum(axis=-1), think.sum(axis=-1))


def drift(b_sq_think: PerInput, b_sq_no_think: PerInput) -> PerInput:
    """A4: κ = |‖B_T‖² − ‖B_N‖²| / ‖B_N‖² of the semantic parts, from squared norms.

    Bias: a small κ comes out too large, as an absolute value of a noisy difference; and ‖B‖² of a mean over n tokens is
    too large by tr Cov(B)/n, which differs between modes of different length.
    """
    return ratio(np.abs(np.asarray(b_sq_think, dtype=np.float64) - b_sq_no_think), b_sq_no_think)


def overlap(think: PerFeature, no_think: PerFeature) -> PerInput:
    """Features active in both modes over features active in either: the paper's "< 3 % overlap", as a share.

    Bias: one token makes a feature active, so this grows with the number of tokens and compares only responses of one
    length. The bound does not use it: ρ is what it needs.
    """
    both = ((think > 0) & (no_think > 0)).sum(axis=-1)
    return ratio(both, ((think > 0) | (no_think > 0)).sum(axis=-1))


def ratio(numerator: Real[np.ndarray, "*input"], denominator: Real[np.ndarray, "*input"]) -> PerInput:
    """numerator / denominator in float64; 0/0 = 0, because an assumption on a part that is absent asks for nothing,
    and x/0 = ∞, because no finite constant covers it."""
    numerator = np.asarray(numerator, dtype=np.float64)
    denominator = np.asarray(denominator, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((numerator == 0) & (denominator == 0), 0.0, numerator / denominator)
