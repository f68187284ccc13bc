"""c⋆ = min wᵀGw over the simplex, as certificates: the coherence constant and what `c_star` returns are at most c⋆.

w is any point of the simplex (`c_star` looks for the best, but nothing here needs that), v any other, y = Gw, and m ≥ 0
at most the least y_i.
"""

from __future__ import annotations

from itertools import combinations

from sympy import Add, Symbol, symbols

from normprobe.theory.certificates import Certificate, Fact, Proof
from normprobe.theory.proof_bound import (
    coherence_constant,
    coherence_steps,
    coherent,
    form,
    vector,
)


def hull_proof(k: int) -> Proof:
    """That c⋆ ≥ (1 − μ(k − 1))/k and c⋆ ≥ m²/wᵀGw, and that non-negative least squares looks for w."""
    w, v, y = vector("w", k), vector("v", k), symbols(f"y_1:{k + 1}", real=True)
    m, scale = symbols("m τ", nonnegative=True)
    w_form, v_form = Symbol("wGw", positive=True), Symbol("vGv", real=True)
    product = Add(*(share * image for share, image in zip(v, y, strict=True)))
    w_on, v_on = (Fact("Σ = 1 on the simplex", Add(*point) - 1, equality=True) for point in (w, v))
    least = [Fact("m ≤ (Gw)_i", image - m) for image in y]
    definite = Fact("xᵀGx ≥ 0 at x = v − w vᵀGw/wᵀGw", v_form - product**2 / w_form)

    c, coherence = coherence_constant(k), coherence_steps(w)
    sharper = Certificate(
        "6a: c⋆ against coherence",
        "wᵀGw ≥ (1 − μ(k − 1))/k",
        form(w, w),
        c,
        [(1, coherence[-1].conclusion), (c * (Add(*w) + 1), w_on)],
    )
    ray = Certificate(
        "6b: least squares",
        "τ²wᵀGw + (1 − τ)² ≥ wᵀGw/(1 + wᵀGw), which grows with wᵀGw",
        scale**2 * w_form + (1 - scale) ** 2,
        w_form / (1 + w_form),
        squares=[(1 + w_form) * (scale - 1 / (1 + w_form)) ** 2],
    )
    dual = Certificate(
        "6c: duality",
        "vᵀGw ≥ m",
        product,
        m,
        [*((share, fact) for share, fact in zip(v, least, strict=True)), (m, v_on)],
    )
    returned = Certificate(
        "6d: the certified lower end",
        "vᵀGv ≥ m²/wᵀGw for every v, so c⋆ ≥ m²/wᵀGw",
        v_form,
        m**2 / w_form,
        [(1, definite), (2 * m / w_form, dual.conclusion)],
        [(product - m) ** 2 / w_form],
    )
    return Proof(
        [*(coherent(i, j) for i, j in combinations(range(k), 2)), w_on, v_on, *least, definite],
        [*coherence, sharper, ray, dual, returned],
    )
