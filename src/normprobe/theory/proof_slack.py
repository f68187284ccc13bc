"""The theorem's steps 1 and 5 as certificates: |g − E| ≤ Ω ≤ Ω_obs (arXiv 2606.06188, with every constant).

T = think, N = no_think; h = B + R + r; g = ‖h_T‖² − ‖h_N‖² and E = ‖R_T‖² − ‖R_N‖². Two things make signs visible:

- Lengths are symbols: ‖B‖ is B ≥ 0, ⟨B, R⟩ is a real BR, and ‖B + R‖² = ‖h − r‖² = B² + 2BR + R².
- δ < 1 is written by its odds u ≥ 0: δ = u/(1 + u), so 1/(1 − δ) = 1 + u and 1/(1 − δ²) = (1 + u)²/(1 + 2u).
"""

from __future__ import annotations

from sympy import Abs, Symbol, symbols

from normprobe.theory.certificates import Certificate, Fact, Proof

epsilon, kappa, u = symbols("ε κ u", nonnegative=True)
delta = u / (1 + u)


class Mode:
    """One mode's state: its lengths h, r, B, R and ⟨B, R⟩, what is assumed of them, what follows within the mode."""

    def __init__(self, name: str) -> None:
        self.h, self.r, self.B, self.R = h, r, B, R = symbols(
            [f"{part}_{name}" for part in "hrBR"], nonnegative=True
        )
        self.BR = BR = Symbol(f"BR_{name}", real=True)
        x_sq = B**2 + 2 * BR + R**2  # ‖B + R‖² = ‖h − r‖²
        fidelity = Fact("A2: ‖r‖ ≤ ε‖h‖", epsilon * h - r)
        sum_of_sides = Fact("triangle: ‖h − r‖ ≤ ‖h‖ + ‖r‖", (h + r) ** 2 - x_sq)
        difference_of_sides = Fact("triangle: ‖h − r‖ ≥ |‖h‖ − ‖r‖|", x_sq - (h - r) ** 2)
        self.separation = {sign: Fact("A3: ±⟨B, R⟩ ≤ δ‖B‖‖R‖", delta * B * R - sign * BR) for sign in (1, -1)}
        self.assumed = (fidelity, sum_of_sides, difference_of_sides, *self.separation.values())
        self.above = Certificate(
            f"1a, {h}: reconstruction from above",
            "‖h − r‖² ≤ (1 + ε)²‖h‖²",
            (1 + epsilon) ** 2 * h**2,
            x_sq,
            [(1, sum_of_sides), ((2 + epsilon) * h + r, fidelity)],
        )
        self.below = Certificate(
            f"1b, {h}: reconstruction from below",
            "‖h − r‖² ≥ (1 − 2ε − ε²)‖h‖²",
            x_sq,
            (1 - 2 * epsilon - epsilon**2) * h**2,
            [(1, difference_of_sides), (2 * h, fidelity)],
            [r**2, epsilon**2 * h**2],
        )
        self.both_parts = Certificate(
            f"5a, {h}: both parts",
            "‖B + R‖² ≥ (1 − δ)(‖B‖² + ‖R‖²)",
            x_sq,
            (1 - delta) * (B**2 + R**2),
            [(2, self.separation[-1])],
            [delta * (B - R) ** 2],
        )
        self.semantic_part = Certificate(
            f"5b, {h}: semantic part",
            "‖B + R‖² ≥ (1 − δ²)‖B‖²",
            x_sq,
            (1 - delta**2) * B**2,
            [(2, self.separation[-1])],
            [(R - delta * B) ** 2],
        )


T, N = Mode("T"), Mode("N")
gap, E = T.h**2 - N.h**2, T.R**2 - N.R**2
states = T.h**2 + N.h**2
omega = kappa * N.B**2 + 2 * delta * (T.B * T.R + N.B * N.R) + (2 * epsilon + epsilon**2) * states
omega_observable = (
    kappa * (1 + epsilon) ** 2 * N.h**2 / (1 - delta**2)
    + (delta * (1 + epsilon) ** 2 / (1 - delta) + 2 * epsilon + epsilon**2) * states
)
# V_T − V_N, by which the gap of mean squared norms exceeds that of the mean states.
spread = Symbol("V", real=True)


def drift(sign: int) -> Fact:
    return Fact("A4: ±(‖B_T‖² − ‖B_N‖²) ≤ κ‖B_N‖²", kappa * N.B**2 - sign * (T.B**2 - N.B**2))


def absolute(sign: int) -> Fact:
    return Fact("|V| ≥ ±V", Abs(spread) - sign * spread)


def covers(sign: int) -> Certificate:
    """Ω ≥ ±(g − E): the signs of all assumptions turn together, and the modes change places."""
    return Certificate(
        f"1c, sign {sign:+d}: the slack covers the gap",
        "±(g − E) ≤ Ω",
        omega,
        sign * (gap - E),
        [
            (1, drift(sign)),
            (2, T.separation[sign]),
            (2, N.separation[-sign]),
            (1, (T.below if sign > 0 else T.above).conclusion),
            (1, (N.above if sign > 0 else N.below).conclusion),
        ],
    )


def covers_averages(sign: int) -> Certificate:
    return Certificate(
        f"1d, sign {sign:+d}: the same for averages",
        "±(g + V − E) ≤ Ω + |V|, V = V_T − V_N",
        omega + Abs(spread),
        sign * (gap + spread - E),
        [(1, covers(sign).conclusion), (1, absolute(sign))],
    )


def observable() -> Certificate:
    drifting = kappa * (1 + u) ** 2 / (1 + 2 * u)
    return Certificate(
        "5c: the observable slack covers the slack",
        "Ω ≤ Ω_obs",
        omega_observable,
        omega,
        [
            (drifting, N.above.conclusion),
            (drifting, N.semantic_part.conclusion),
            *((u, step.conclusion) for mode in (T, N) for step in (mode.above, mode.both_parts)),
        ],
        [delta * (mode.B - mode.R) ** 2 for mode in (T, N)],
    )


def slack_proof() -> Proof:
    signs = (1, -1)
    return Proof(
        [*T.assumed, *N.assumed, *map(drift, signs), *map(absolute, signs)],
        [
            *(step for mode in (T, N) for step in (mode.above, mode.below)),
            *map(covers, signs),
            *map(covers_averages, signs),
            *(step for mode in (T, N) for step in (mode.both_parts, mode.semantic_part)),
            observable(),
        ],
    )
