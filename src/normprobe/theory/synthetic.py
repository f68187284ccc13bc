"""Pairs of states that satisfy A1-A4 with given constants, exactly; setting one constant breaks one assumption.

With all constants 0 the slack-free bound √g ≤ S ≤ √(kg) must hold. Each entry of `BROKEN` breaks one assumption enough
for it to fail; A1 by *negative* cosines, because positive ones only help.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from normprobe.theory.bound import Constants, Lengths
from normprobe.theory.constants import delta, drift, epsilon, leakage


@dataclass(frozen=True)
class Planted:
    """The constants that a pair is made with: the `cosine` of all pairs of atoms (A1), ε (A2), δ (A3), ρ and κ (A4)."""

    cosine: float = 0.0
    epsilon: float = 0.0
    delta: float = 0.0
    rho: float = 0.0
    kappa: float = 0.0


EXACT = Planted()
BROKEN = {
    "A1": Planted(cosine=-0.3),
    "A2": Planted(epsilon=0.05),
    "A3": Planted(delta=0.1),
    "A4 (leakage)": Planted(rho=0.2),
    "A4 (drift)": Planted(kappa=0.03),
}


@dataclass(frozen=True)
class Pair:
    """A dictionary's reasoning atoms (unit rows) with activations a (think), b (no think) and the rest of both states.

    semantic and residual hold B and r, rows think and no_think.
    """

    atoms: Float[np.ndarray, "k d"]
    a: Float[np.ndarray, " k"]
    b: Float[np.ndarray, " k"]
    semantic: Float[np.ndarray, "2 d"]
    residual: Float[np.ndarray, "2 d"]

    @property
    def reasoning(self) -> Float[np.ndarray, "2 d"]:
        return np.stack([self.a, self.b]) @ self.atoms

    @property
    def states(self) -> Float[np.ndarray, "2 d"]:
        return self.semantic + self.reasoning + self.residual

    @property
    def s(self) -> Float[np.ndarray, " 1"]:
        """S = Σ Δ, one value."""
        return (self.a - self.b).sum(keepdims=True)

    def lengths(self) -> Lengths:
        h, b, r = ((part**2).sum(axis=1) for part in (self.states, self.semantic, self.reasoning))
        return Lengths(h[:1], h[1:], b[:1], b[1:], r[:1], r[1:])

    def constants(self) -> Constants:
        """What A2-A4 measure on this pair: the least constants with which they hold."""
        h, b, r, rest = (
            (part**2).sum(axis=1) for part in (self.states, self.semantic, self.reasoning, self.residual)
        )
        return Constants(
            epsilon=epsilon(rest, h).max(keepdims=True),
            delta=delta((self.semantic * self.reasoning).sum(axis=1), b, r).max(keepdims=True),
            rho=leakage(self.a[None], self.b[None]),
            kappa=drift(b[:1], b[1:]),
        )


def atoms_with_cosine(k: int, d: int, cosine: float, rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    """k unit atoms in random position, every pair at the same cosine.

    Raises ValueError unless k ≤ d and −1/(k − 1) ≤ cosine ≤ 1, outside of which no such atoms exist.
    """
    values, vectors = np.linalg.eigh(np.full((k, k), cosine) + (1 - cosine) * np.eye(k))
    if k > d or values[0] < -1e-12:
        raise ValueError(f"expected k ≤ d and a cosine in [−1/(k−1), 1], got k={k}, d={d}, cosine={cosine}")
    frame, _ = np.linalg.qr(rng.normal(size=(d, k)))
    return vectors * np.sqrt(np.maximum(values, 0)) @ frame.T


def synthetic_pair(
    rng: np.random.Generator, planted: Planted = EXACT, *, k: int = 2, d: int = 16, semantic: float = 3.0
) -> Pair:
    """A random pair with Δ ≥ 0, ‖B_N‖ = `semantic` and exactly these constants, the signs of ε, δ and κ at random.

    Needs k < d (B has a direction outside the atoms' span) and ε, δ, ρ < 1.
    """
    atoms = atoms_with_cosine(k, d, planted.cosine, rng)
    difference, b = rng.exponential(size=k), rng.exponential(size=k)
    b *= planted.rho / (1 - planted.rho) * difference.sum() / b.sum()
    a = difference + b
    sign = rng.choice([-1.0, 1.0], size=5)
    outside = rng.normal(size=d)
    frame, _ = np.linalg.qr(atoms.T)
    outside -= frame @ (frame.T @ outside)
    outside /= np.linalg.norm(outside)
    rest, residuals = np.empty((2, d)), np.empty((2, d))
    for mode, (z, squared) in enumerate(((a, 1 + sign[0] * planted.kappa), (b, 1.0))):
        part = z @ atoms
        length = np.linalg.norm(part)
        along = part / length if length > 0 else outside
        across = np.sqrt(1 - planted.delta**2) if length > 0 else 0.0
        towards = sign[1 + mode] * planted.delta if length > 0 else 1.0
        rest[mode] = semantic * np.sqrt(squared) * (across * outside + towards * along)
        # r = ±ε h exactly, since h − r = x gives h = x/(1 ∓ ε): the direction that moves the norm most.
        error = sign[3 + mode] * planted.epsilon
        residuals[mode] = error / (1 - error) * (rest[mode] + part)
    return Pair(atoms, a, b, rest, residuals)
