"""The theorem on every case of small grids, in integers and fractions: nothing is rounded, so nothing is excused.

Atoms are the twelve unit vectors (x, y)/5 with integers x and y: five times an atom and 25 times a cosine are integers.
"""

from fractions import Fraction
from itertools import combinations, product
from math import isqrt

import numpy as np
import pytest

from normprobe.theory.bound import Constants, Lengths, signed_bound, slack
from normprobe.theory.orthogonality import c_star

ATOMS = np.array([(x, y) for x, y in product(range(-5, 6), repeat=2) if x * x + y * y == 25])


def cases(k: int, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """25 G [dictionary, k, k], a and b [pair, k]: all k of the atoms, all activations up to `top` with ρ < 1."""
    chosen = ATOMS[np.array(list(product(range(len(ATOMS)), repeat=k)))]
    a, b = np.split(np.array(list(product(range(top + 1), repeat=2 * k))), 2, axis=1)
    below_one = b.sum(axis=1) < a.sum(axis=1)
    return chosen @ chosen.transpose(0, 2, 1), a[below_one], b[below_one]


def forms(gram: np.ndarray, x: np.ndarray) -> np.ndarray:
    """25 xᵀGx [dictionary, pair]."""
    return np.einsum("pi,dij,pj->dp", x, gram, x)


def most_negative(gram: np.ndarray, on: np.ndarray) -> np.ndarray:
    """25 μ₋ over the atoms in `on` [dictionary, pair]."""
    worst = np.zeros((len(gram), len(on)), dtype=np.int64)
    for i, j in combinations(range(on.shape[1]), 2):
        worst = np.maximum(worst, -gram[:, i, j, None] * (on[:, i] & on[:, j]))
    return worst


@pytest.mark.parametrize("k, top", [(1, 6), (2, 3), (3, 2)])
def test_reasoning_parts_obey_the_signed_form(k: int, top: int) -> None:
    """E ≤ ‖a‖₁² and E ≥ (c − ρ²)‖a‖₁² with c = (1 − μ(k − 1))/k of the active atoms, multiplied out."""
    gram, a, b = cases(k, top)
    E, A, B = forms(gram, a) - forms(gram, b), a.sum(axis=1), b.sum(axis=1)  # 25 E
    active = (a > 0).sum(axis=1)
    constant = A**2 * (25 - most_negative(gram, a > 0) * (active - 1)) - 25 * active * B**2
    assert (E <= 25 * A**2).all()
    assert (constant <= active * E).all()
    # A positive constant may be multiplied by S² ≤ ‖a‖₁²: the form that is used.
    assert ((A - B) ** 2 * np.maximum(constant, 0) <= active * A**2 * np.maximum(E, 0)).all()


@pytest.mark.parametrize("k, top", [(1, 6), (2, 3), (3, 2)])
def test_reasoning_parts_obey_the_ordered_form(k: int, top: int) -> None:
    """(1 − ρ)E ≤ (1 + ρ)S² and E ≥ ((1 − μ(k − 1))/k − 2μρ/(1 − ρ))S², multiplied out."""
    gram, a, b = cases(k, top)
    a, b = (part[(a >= b).all(axis=1)] for part in (a, b))
    E, A, B = forms(gram, a) - forms(gram, b), a.sum(axis=1), b.sum(axis=1)
    S, risen = A - B, (a > b).sum(axis=1)
    mu = most_negative(gram, a > 0)
    assert ((A - B) * E <= 25 * (A + B) * S**2).all()
    assert (S * ((25 - mu * (risen - 1)) * S - 2 * mu * risen * B) <= risen * E).all()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_equality_exactly_at_equal_orthogonal_features(k: int) -> None:
    """√g ≤ S ≤ √(k g) for orthogonal atoms: the lower half is met by one feature, the upper half by k equal ones."""
    a = np.array(list(product(range(5), repeat=k)))[1:]
    gap, S_sq, active = (a**2).sum(axis=1), a.sum(axis=1) ** 2, (a > 0).sum(axis=1)
    assert (gap <= S_sq).all()
    assert (S_sq <= active * gap).all()
    assert ((gap == S_sq) == (active == 1)).all()
    equal = np.array([len(set(row[row > 0])) == 1 for row in a])
    assert ((active * gap == S_sq) == equal).all()


def exact_c_star(atoms: np.ndarray) -> Fraction:
    """c⋆ of up to three unit atoms in the plane: 0 inside their hull, else at one atom or half-way between two."""
    if len(atoms) == 3:
        turns = {
            int(np.sign(p[0] * q[1] - p[1] * q[0])) for p, q in zip(atoms, np.roll(atoms, 1, 0), strict=True)
        }
        if turns in ({1}, {-1}):
            return Fraction(0)
    halfway = (Fraction(25 + int(p @ q), 50) for p, q in combinations(atoms, 2))
    return min([Fraction(1), *halfway])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_c_star_is_the_exact_minimum_or_just_below(k: int) -> None:
    for index in combinations(range(len(ATOMS)), k):
        exact = exact_c_star(ATOMS[list(index)])
        found = c_star(ATOMS[list(index)] @ ATOMS[list(index)].T / 25)
        assert float(exact) - 1e-6 <= found <= float(exact) + 1e-12


# The whole theorem: states of two features, a semantic part and a residual, with all constants measured.

SEMANTIC = [np.array([(0, 40), n]) for n in ((0, 40), (-40, 20), (20, -20))]
SEMANTIC += [np.array([(-20, 0), n]) for n in ((-20, 0), (20, -20))]
RESIDUAL = [np.array([t, n]) for t in ((0, 0), (4, 0)) for n in ((0, 0), (-2, 4))]
ACTIVATIONS = [
    (a, b) for a in product((0, 1, 2), repeat=2) for b in product((0, 1), repeat=2) if sum(b) < sum(a)
]


def below(square: Fraction) -> Fraction:
    """The root: exact if rational, else from below to within 2⁻⁶⁰."""
    n, d = square.numerator, square.denominator
    root = Fraction(isqrt(n), isqrt(d))
    return root if root**2 == square else Fraction(isqrt((n << 120) // d), 1 << 60)


def above(square: Fraction) -> Fraction:
    root = below(square)
    return root if root**2 == square else root + Fraction(1, 1 << 60)


def squares(vectors: np.ndarray) -> list[Fraction]:
    """Squared lengths of vectors that were multiplied by 20."""
    return [Fraction(int(vector @ vector), 400) for vector in vectors]


def test_the_whole_theorem() -> None:
    """Roots are taken of whole products, so they are exact wherever an inequality is met with equality; elsewhere they
    are taken from the side that makes the inequality harder."""
    measured, exact, tight = [], [], 0
    for second, (a, b), semantic, residual in product(ATOMS, ACTIVATIONS, SEMANTIC, RESIDUAL):
        atoms = np.array([ATOMS[0], second])
        reasoning = 4 * np.array([a, b]) @ atoms
        h, B, R, r = map(squares, (semantic + reasoning + residual, semantic, reasoning, residual))
        if not all(h):
            continue
        dots = [Fraction(int(x @ y), 400) for x, y in zip(semantic, reasoning, strict=True)]
        kappa, rho = abs(B[0] - B[1]) / B[1], Fraction(sum(b), sum(a))
        eps_sq = max(map(Fraction.__truediv__, r, h))
        delta_sq = max(dot**2 / (x * y) if y else Fraction(0) for dot, x, y in zip(dots, B, R, strict=True))
        gap, E, S = h[0] - h[1], R[0] - R[1], sum(a) - sum(b)

        drift = kappa * B[1]
        omega = drift + 2 * sum(below(delta_sq * x * y) for x, y in zip(B, R, strict=True))
        omega += 2 * sum(below(eps_sq * x * x) for x in h) + eps_sq * sum(h)
        assert abs(gap - E) <= omega
        tight += abs(gap - E) == omega > 0

        if delta_sq < 1:
            grown = (1 + below(eps_sq)) ** 2
            delta = below(delta_sq)
            more = kappa * grown * h[1] / (1 - delta_sq) + delta * grown / (1 - delta) * sum(h)
            assert more >= drift + 2 * sum(above(delta_sq * x * y) for x, y in zip(B, R, strict=True))

        mu = max(Fraction(-int(atoms[0] @ atoms[1]), 25), Fraction(0))
        for c in ((1 - mu) / 2, exact_c_star(atoms)):
            assert (1 - rho) ** 2 * (gap - omega) <= S**2
            assert c <= rho**2 or (c - rho**2) * S**2 <= gap + omega
            if a[0] >= b[0] and a[1] >= b[1]:
                assert (1 - rho) * (gap - omega) <= (1 + rho) * S**2
                assert (c - 2 * mu * rho / (1 - rho)) * S**2 <= gap + omega
        measured.append([*h, *B, *R, eps_sq, delta_sq, rho, kappa, S, exact_c_star(atoms)])
        exact.append(omega)
    assert len(exact) > 5000
    assert tight > 100

    columns = np.array(measured, dtype=np.float64).T
    lengths = Lengths(*columns[:6])
    constants = Constants(np.sqrt(columns[6]), np.sqrt(columns[7]), columns[8], columns[9])
    omega = slack(constants, lengths)
    np.testing.assert_allclose(omega, np.array(exact, dtype=np.float64), rtol=1e-12)
    assert signed_bound(lengths.gap, omega, constants.rho, columns[11]).holds(columns[10]).all()
