"""A1, orthogonality of the decoder atoms: cosines without the Gram matrix, their baselines, and c⋆.

A mean |cos| below 0.02 says nothing by itself: random unit vectors have sqrt(2/(pi d)) (0.0176 at d = 2048).

All of these belong to a dictionary that is known, not sampled: they have no sampling error and no interval. What bias
they have comes from the set of atoms and is on the safe side: the theorem asks only about atoms that are *active*, and
over all of I a maximum (μ, μ₋) can only be larger and a minimum over the simplex (c⋆) only smaller.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from normprobe.errors import NormprobeError

# A numpy array, or a detached torch tensor on any device: theory never imports torch.
Atoms = Float[Any, "n d"]


@dataclass(frozen=True)
class Coherence:
    """Cosines over all pairs i < j of a dictionary; all dimensionless, exact up to rounding.

    mean_abs: mean |⟨d_i, d_j⟩| (NaN with fewer than two atoms).
    max_abs:  max |⟨d_i, d_j⟩|, the μ of A1 (0 with fewer than two atoms, where A1 asks for nothing). It grows with n,
              at random like sqrt(4 log(n)/d), so compare it only between dictionaries of one shape.
    mu_minus: max(−⟨d_i, d_j⟩)₊, all that the upper half of the bound needs; at most max_abs.
    """

    mean_abs: float
    max_abs: float
    mu_minus: float


def unit_atoms(atoms: Atoms) -> Atoms:
    """The atoms divided by their lengths, in their own float precision (at least float32), where they are.

    Raises NormprobeError if an atom is zero or not finite.
    """
    xp = _library(atoms)
    atoms = xp.asarray(atoms, dtype=xp.promote_types(atoms.dtype, xp.float32))
    lengths = xp.sqrt(xp.einsum("nd,nd->n", atoms, atoms))
    good = int((xp.isfinite(lengths) & (lengths > 0)).sum())
    if good < len(atoms):
        raise NormprobeError(
            f"expected finite, non-zero decoder atoms, got {len(atoms) - good} of {len(atoms)} that are not; "
            "retrain the dictionary or drop these atoms"
        )
    return atoms / lengths[:, None]


def coherence(atoms: Atoms, tile: int = 2048) -> Coherence:
    """Cosines between all pairs of atoms, in tiles of the upper triangle: memory O(n·d + tile²), never n².

    Runs where the atoms are: numpy, or torch on the CPU or a GPU. Products are taken in the precision of the atoms (at
    least float32), sums in float64. Atoms need not be of unit length. A dictionary takes twice its own memory.
    """
    unit = unit_atoms(atoms)
    xp, n = _library(unit), len(unit)
    total, highest, lowest = 0.0, 0.0, 0.0
    for row in range(0, n, tile):
        for column in range(row, n, tile):
            cosines = unit[row : row + tile] @ unit[column : column + tile].T
            if row == column:
                # The strict lower triangle repeats the upper one and the diagonal is no pair: both become 0,
                # which changes neither a sum of |cos| nor extremes that start at 0.
                cosines = xp.triu(cosines, 1)
            total += float(abs(cosines).sum(dtype=xp.float64))
            highest, lowest = max(highest, float(cosines.max())), min(lowest, float(cosines.min()))
    pairs = n * (n - 1) // 2
    return Coherence(total / pairs if pairs else float("nan"), max(highest, -lowest), abs(lowest))


def _library(array: Atoms) -> Any:
    """numpy or torch, whichever made the array: both give everything used here the same names."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def random_baseline(d: int) -> float:
    """sqrt(2/(pi d)): the mean |cos| of random directions in d dimensions (first order in 1/d)."""
    return float(np.sqrt(2 / (np.pi * d)))


def welch_bound(n: int, d: int) -> float:
    """The least max |cos| that n unit vectors in d dimensions can have: sqrt((n − d)/(d (n − 1))), 0 for n ≤ d."""
    return float(np.sqrt((n - d) / (d * (n - 1)))) if n > d else 0.0


def c_star(gram: Float[np.ndarray, "k k"], tolerance: float = 1e-6) -> float:
    """min of wᵀGw over the simplex: the squared distance from 0 to the convex hull of the k atoms.

    Replaces (1 − μ(k−1))/k in the upper half of the bound, which is never larger. What is returned is the *certified
    lower end* of the minimum, too small by at most `tolerance`, so a bound that divides by it stays a bound. Being the
    value over a larger simplex, c⋆ of all selected atoms is at most c⋆ of any subset of them. NaN without atoms.
    Raises NormprobeError if G is not a finite Gram matrix or if the gap exceeds `tolerance`.

    Method: u ≥ 0 minimising ‖Au‖² + (1 − Σu)² with G = AᵀA is a multiple of the minimiser w (along u = t·w the value
    is least at t = 1/(1 + wᵀGw), where it is wᵀGw/(1 + wᵀGw), increasing in wᵀGw); non-negative least squares finds it
    by an active set, in finitely many steps. Certificate: by Cauchy-Schwarz in the G-seminorm every simplex point v has
    vᵀGv ≥ m²/wᵀGw with m = min_i (Gw)_i ≥ 0.
    """
    gram = np.asarray(gram, dtype=np.float64)
    k = len(gram)
    if k == 0:
        return float("nan")
    values, vectors = np.linalg.eigh(gram) if np.isfinite(gram).all() else (np.array([-np.inf]), gram)
    if values[0] < -1e-5 * max(1.0, values[-1]):
        raise NormprobeError(
            f"expected a finite positive semi-definite Gram matrix, got smallest eigenvalue {values[0]:.3g}; "
            "pass atoms @ atoms.T"
        )
    root = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    kept = values > 1e-12 * values[-1]
    u, _ = nnls(
        np.vstack([root[kept], np.ones(k)]), np.append(np.zeros(int(kept.sum())), 1.0), maxiter=30 * k
    )
    w = u / u.sum()
    image = gram @ w
    upper, smallest = float(w @ image), max(float(image.min()), 0.0)
    lower = min(smallest**2 / upper, upper) if upper > 0 else 0.0
    if upper - lower > tolerance:
        raise NormprobeError(
            f"expected a duality gap of at most {tolerance:g} for c⋆, got {upper - lower:.3g} with {k} atoms; "
            "use fewer atoms or float64"
        )
    return lower
