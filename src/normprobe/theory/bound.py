"""The two-sided bound on S = Σ_{i∈I} Δz_i from the gap g = ‖h_T‖² − ‖h_N‖², with every constant.

For h_s = B_s + R_s + r_s (s = T thinking, N not), R_s = Σ_{i∈I} z_i^s d_i with unit atoms and z ≥ 0, a = z^T, b = z^N:
A2–A4 give |g − E| ≤ Ω with E = ‖R_T‖² − ‖R_N‖², and A1 and A4 bound E by S² from both sides. All arrays broadcast over
bound inputs (a problem in a layer); all lengths are in activation units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

PerInput = Float[np.ndarray, "*#input"]

# Relative rounding allowed before a bound counts as violated: the tables are float32.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Constants:
    """epsilon (A2), delta (A3), rho and kappa (A4); dimensionless, ≥ 0, one per bound input or broadcast."""

    epsilon: PerInput
    delta: PerInput
    rho: PerInput
    kappa: PerInput


# "Residual < 5 %" read as ε = 0.05, the reading that favours the paper (R² = 0.95 can mean ε = √0.05).
PAPER = Constants(*(np.array(value) for value in (0.05, 0.1, 0.03, 0.03)))
PAPER_MU = np.array(0.02)


@dataclass(frozen=True)
class Lengths:
    """Squared norms of both modes' states (h), semantic (b) and reasoning (r) parts, in squared activation units.

    For averages these are the norms *of the mean states*, not means of norms.
    """

    h_think: PerInput
    h_no_think: PerInput
    b_think: PerInput
    b_no_think: PerInput
    r_think: PerInput
    r_no_think: PerInput

    @property
    def gap(self) -> PerInput:
        return self.h_think - self.h_no_think


@dataclass(frozen=True)
class Bound:
    """lower ≤ S ≤ upper. A half that says nothing is 0 or −∞ below, ∞ above."""

    lower: PerInput
    upper: PerInput

    @property
    def lower_vacuous(self) -> Bool[np.ndarray, "*input"]:
        return self.lower <= 0

    @property
    def upper_vacuous(self) -> Bool[np.ndarray, "*input"]:
        return np.isinf(self.upper)

    @property
    def vacuous(self) -> Bool[np.ndarray, "*input"]:
        """Θ has two sides: the bound is vacuous as soon as one half is."""
        return self.lower_vacuous | self.upper_vacuous

    def holds(self, s: PerInput) -> Bool[np.ndarray, "*input"]:
        """Whether S lies between the halves, up to rounding; a vacuous half always holds."""
        room = ROUNDING * np.abs(s) + np.finfo(np.float32).tiny
        return (s >= self.lower - room) & (s <= self.upper + room)


def slack(constants: Constants, lengths: Lengths) -> PerInput:
    """Ω = κ‖B_N‖² + 2δ(‖B_T‖‖R_T‖ + ‖B_N‖‖R_N‖) + (2ε + ε²)(‖h_T‖² + ‖h_N‖²): how far g may be from E."""
    parts = np.sqrt(lengths.b_think * lengths.r_think) + np.sqrt(lengths.b_no_think * lengths.r_no_think)
    states = lengths.h_think + lengths.h_no_think
    epsilon = constants.epsilon
    return (
        constants.kappa * lengths.b_no_think
        + 2 * constants.delta * parts
        + (2 * epsilon + epsilon**2) * states
    )


def observable_slack(constants: Constants, h_think: PerInput, h_no_think: PerInput) -> PerInput:
    """Ω_obs ≥ Ω from squared norms of states alone, for when no dictionary is at hand; ∞ for δ ≥ 1."""
    epsilon, delta = constants.epsilon, constants.delta
    # δ ≥ 1 excludes nothing: the parts may cancel, and their lengths have no limit.
    cosine = np.where(delta < 1, delta, 0.0)
    grown = (1 + epsilon) ** 2
    omega = constants.kappa * grown * h_no_think / (1 - cosine**2) + (
        cosine * grown / (1 - cosine) + 2 * epsilon + epsilon**2
    ) * (h_think + h_no_think)
    return np.where(delta < 1, omega, np.inf)


def averaged_slack(omega: PerInput, spread_think: PerInput, spread_no_think: PerInput) -> PerInput:
    """Ω + |V_T − V_N| for the *measured* gap of mean squared norms, V = mean ‖h‖² − ‖h̄‖² (the covariance's trace)."""
    return omega + np.abs(spread_think - spread_no_think)


def coherence_constant(k: PerInput, mu: PerInput) -> PerInput:
    """(1 − μ(k − 1))/k ≤ c⋆ for k atoms with cosines ≥ −μ; ≤ 0 from k = 1 + 1/μ. No atom needs no constant: 1.

    k counts the features in supp a (signed form) or supp Δ (ordered form). Exact for one bound input; k grows with the
    number of tokens, as one token with z > 0 suffices, which is the safe side: a constant for more atoms is smaller.
    """
    at_least_one = np.maximum(k, 1)
    return (1 - mu * (at_least_one - 1)) / at_least_one


def signed_bound(gap: PerInput, omega: PerInput, rho: PerInput, c: PerInput) -> Bound:
    """The primary form: no sign is asked of Δ.

    (1 − ρ)√(g − Ω)₊ ≤ S ≤ √((g + Ω)₊ / (c − ρ²)), with wᵀGw ≥ c on the simplex over supp a: `coherence_constant` of
    |supp a|, or c⋆ of any atoms that include supp a. For ρ ≥ 1 the theorem says nothing.
    """
    applies = rho < 1
    inside = np.where(applies, rho, 0.0)
    lower = np.where(applies, (1 - inside) * np.sqrt(np.maximum(gap - omega, 0)), -np.inf)
    return Bound(lower, _upper(gap, omega, np.where(applies, c - inside**2, 0.0)))


def ordered_bound(gap: PerInput, omega: PerInput, rho: PerInput, c: PerInput, mu: PerInput) -> Bound:
    """The paper's form, for Δ ≥ 0 (the set I⁺).

    √((g − Ω)₊(1 − ρ)/(1 + ρ)) ≤ S ≤ √((g + Ω)₊ / (c − 2μρ/(1 − ρ))), with c for the atoms in supp Δ and μ = max(−cos)₊
    over the atoms in supp Δ ∪ supp b. For ρ ≥ 1 the theorem says nothing.
    """
    applies = rho < 1
    inside = np.where(applies, rho, 0.0)
    lower = np.where(applies, np.sqrt(np.maximum(gap - omega, 0) * (1 - inside) / (1 + inside)), -np.inf)
    return Bound(lower, _upper(gap, omega, np.where(applies, c - 2 * mu * inside / (1 - inside), 0.0)))


def slack_free_bound(gap: PerInput, k: PerInput) -> Bound:
    """√g ≤ S ≤ √(k g): what is left when all assumptions are exact. "Θ" hides the √k (equal orthogonal features)."""
    positive = np.maximum(gap, 0)
    return Bound(np.sqrt(positive), np.sqrt(k * positive))


def _upper(gap: PerInput, omega: PerInput, c: PerInput) -> PerInput:
    positive = c > 0
    # An infinite slack over a positive constant is infinite too, as it must be.
    return np.where(positive, np.sqrt(np.maximum(gap + omega, 0) / np.where(positive, c, 1.0)), np.inf)
