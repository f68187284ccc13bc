"""The theorem's steps 1 and 5 as certificates: |g − E| ≤ Ω ≤ Ω_obs (arXiv 2606.06188, with every constant).

T = think, N = no_think; h = B + R + r; g = ‖h_T‖² − ‖h_N‖² and E = ‖R_T‖² − ‖R_N‖². Two things make signs visible:

- Lengths are symbols: ‖B‖ is B ≥ 0, ⟨B, R⟩ is a real BR, and ‖B + R‖² = ‖h − r‖² = B² + 2BR + R².
- δ < 1 is written by its odds u ≥ 0: δ = u/(1 + u), so 1/(1 − δ) = 1 + u and 1/(1 − δ²) = (1 + u)²/(1 + 2u).
"""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Abs, Expr, Symbol, symbols

from normprobe.theory.certificates import Certificate, Fact, Proof

epsilon, kappa, u = symbols("ε κ u", nonnegative=True)
delta = u / (1 + u)


@dataclass(frozen=True)
class Mode:
    """The lengths of one mode's state and parts, with what is assumed of them and what follows within the mode."""

    h: Symbol
    r: Symbol
    B: Symbol
    R: Symbol
    BR: Symbol

    @classmethod
    def named(cls, name: str) -> Mode:
        h, r, B, R = (Symbol(f"{part}_{name}", nonnegative=True) for part in "hrBR")
        return cls(h, r, B, R, Symbol(f"BR_{name}", real=True))

    @property
    def x_sq(self) -> Expr:
        """‖B + R‖² = ‖h − r‖²."""
        return self.B**2 + 2 * self.BR + self.R**2

    @property
    def fidelity(self) -> Fact:
        return Fact("A2: ‖r‖ ≤ ε‖h‖", epsilon * self.h - self.r)

    @property
    def sum_of_sides(self) -> Fact:
        return Fact("triangle: ‖h − r‖ ≤ ‖h‖ + ‖r‖", (self.h + self.r) ** 2 - self.x_sq)

    @property
    def difference_of_sides(self) -> Fact:
        return Fact("triangle: ‖h − r‖ ≥ |‖h‖ − ‖r‖|", self.x_sq - (self.h - self.r) ** 2)

    def separation(self, sign: int) -> Fact:
        return Fact("A3: ±⟨B, R⟩ ≤ δ‖B‖‖R‖", delta * self.B * self.R - sign * self.BR)

    @property
    def assumed(self) -> tuple[Fact, ...]:
        apart = self.separation(1), self.separation(-1)
        return self.fidelity, self.sum_of_sides, self.difference_of_sides, *apart

    @property
    def above(self) -> Certificate:
        return Certificate(
            f"1a, {self.h}: reconstruction from above",
            "‖h − r‖² ≤ (1 + ε)²‖h‖²",
            (1 + epsilon) ** 2 * self.h**2,
            self.x_sq,
            [(1, self.sum_of_sides), ((2 + epsilon) * self.h + self.r, self.fidelity)],
        )

    @property
    def below(self) -> Certificate:
        return Certificate(
            f"1b, {self.h}: reconstruction from below",
            "‖h − r‖² ≥ (1 − 2ε − ε²)‖h‖²",
            self.x_sq,
            (1 - 2 * epsilon - epsilon**2) * self.h**2,
            [(1, self.difference_of_sides), (2 * self.h, self.fidelity)],
            [self.r**2, epsilon**2 * self.h**2],
        )

    @property
    def both_parts(self) -> Certificate:
        return Certificate(
            f"5a, {self.h}: both parts",
            "‖B + R‖² ≥ (1 − δ)(‖B‖² + ‖R‖²)",
            self.x_sq,
            (1 - delta) * (self.B**2 + self.R**2),
            [(2, self.separation(-1))],
            [delta * (self.B - self.R) ** 2],
        )

    @property
    def semantic_part(self) -> Certificate:
        return Certificate(
            f"5b, {self.h}: semantic part",
            "‖B + R‖² ≥ (1 − δ²)‖B‖²",
            self.x_sq,
            (1 - delta**2) * self.B**2,
            [(2, self.separation(-1))],
            [(self.R - delta * self.B) ** 2],
        )


T, N = Mode.named("T"), Mode.named("N")
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
            (2, T.separation(sign)),
            (2, N.separation(-sign)),
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
