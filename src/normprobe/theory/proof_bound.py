"""The theorem's steps 2, 3 and 4 as certificates: E = ‖R_T‖² − ‖R_N‖² against S², from there both forms, and c⋆.

R_T = Σ a_i d_i and R_N = Σ b_i d_i with k unit atoms and a, b ≥ 0; S = Σ a_i − Σ b_i. All statements are about squares:
as S ≥ 0, X ≤ S² ≤ Y says √X₊ ≤ S ≤ √Y₊. Two things make signs visible:

- Unit atoms are written by their distances D_ij: ⟨d_i, d_j⟩ = 1 − D_ij²/2.
- ρ < 1 is written by its odds t ≥ 0: ρ = t/(1 + t), so 1/(1 − ρ) = 1 + t and (1 + ρ)/(1 − ρ) = 1 + 2t.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from sympy import Add, Expr, Integer, Symbol, symbols

from normprobe.theory.certificates import Certificate, Fact, Proof
from normprobe.theory.proof_slack import E, N, T, covers, gap, omega

mu, t = symbols("μ t", nonnegative=True)
rho = t / (1 + t)
Vector = Sequence[Expr]


def vector(name: str, k: int) -> tuple[Symbol, ...]:
    return tuple(symbols(f"{name}_1:{k + 1}", nonnegative=True))


def distance(i: int, j: int) -> Symbol:
    return Symbol(f"D_{min(i, j) + 1}{max(i, j) + 1}", nonnegative=True)


def cosine(i: int, j: int) -> Expr:
    return 1 - distance(i, j) ** 2 / 2 if i != j else Integer(1)


def form(x: Vector, y: Vector) -> Expr:
    """xᵀGy = ⟨Σ x_i d_i, Σ y_j d_j⟩."""
    return Add(*(x[i] * cosine(i, j) * y[j] for i in range(len(x)) for j in range(len(y))))


def coherence_constant(k: int) -> Expr:
    return (1 - mu * (k - 1)) / k


def coherent(i: int, j: int) -> Fact:
    return Fact("A1: ⟨d_i, d_j⟩ ≥ −μ", cosine(i, j) + mu)


def parts(a: Vector, b: Vector, supported: Vector, c: Expr) -> tuple[Fact, Fact, Fact, Fact]:
    """A4 for a and b, what R_T and R_N consist of, and that c is a constant for the atoms of `supported`."""
    return (
        Fact("A4: ‖b‖₁ ≤ ρ‖a‖₁", rho * Add(*a) - Add(*b)),
        Fact("R_T = Σ a_i d_i", T.R**2 - form(a, a), equality=True),
        Fact("R_N = Σ b_i d_i", N.R**2 - form(b, b), equality=True),
        Fact(
            "c is at most wᵀGw on the simplex: xᵀGx ≥ c(Σx)²",
            form(supported, supported) - c * Add(*supported) ** 2,
        ),
    )


def in_both_forms(k: int) -> list[Fact]:
    """A1, and what `slack_proof` certifies."""
    return [coherent(i, j) for i, j in combinations(range(k), 2)] + [covers(s).conclusion for s in (1, -1)]


def aligned(name: str, x: Vector, y: Vector) -> Certificate:
    return Certificate(
        name,
        "unit atoms are aligned at best: xᵀGy ≤ Σx Σy",
        Add(*x) * Add(*y),
        form(x, y),
        squares=[
            distance(i, j) ** 2 / 2 * x[i] * y[j] for i in range(len(x)) for j in range(len(y)) if i != j
        ],
    )


def coherence_steps(x: Vector) -> list[Certificate]:
    """The coherence constant for the atoms of x; the last step is its conclusion."""
    k, squares = len(x), Add(*(value**2 for value in x))
    apart = Certificate(
        "4a: coherence",
        "xᵀGx ≥ (1 + μ)‖x‖² − μ(Σx)²",
        form(x, x),
        (1 + mu) * squares - mu * Add(*x) ** 2,
        [(2 * x[i] * x[j], coherent(i, j)) for i, j in combinations(range(k), 2)],
    )
    spread_out = Certificate(
        "4b: Cauchy-Schwarz",
        "k‖x‖² ≥ (Σx)²",
        k * squares,
        Add(*x) ** 2,
        squares=[(first - second) ** 2 for first, second in combinations(x, 2)],
    )
    bounds = Certificate(
        "4c: the coherence constant",
        "xᵀGx ≥ (Σx)² (1 − μ(k − 1))/k; on the simplex: c⋆ ≥ (1 − μ(k − 1))/k",
        form(x, x),
        coherence_constant(k) * Add(*x) ** 2,
        [(1, apart.conclusion), ((1 + mu) / k, spread_out.conclusion)],
    )
    return [apart, spread_out, bounds]


def ordered_proof(k: int) -> Proof:
    """The paper's form: a = b + Δ with Δ ≥ 0."""
    rise, b = vector("Δ", k), vector("b", k)
    a = [x + y for x, y in zip(rise, b, strict=True)]
    S, b_sum, c = Add(*rise), Add(*b), Symbol("c", real=True)
    leak, thinking, not_thinking, minimum = parts(a, b, rise, c)
    coherence = coherence_steps(rise)
    split = Certificate(
        "2: the difference",
        "E = ΔᵀGΔ + 2ΔᵀGb",
        E,
        form(rise, rise) + 2 * form(rise, b),
        [(1, thinking), (-1, not_thinking)],
    )
    own, cross = aligned("3a: ΔᵀGΔ", rise, rise), aligned("3b: ΔᵀGb", rise, b)
    leaks = Certificate("3c: leakage", "‖b‖₁ ≤ ρS/(1 − ρ)", rho / (1 - rho) * S, b_sum, [(1 + t, leak)])
    above = Certificate(
        "3d: from above",
        "E ≤ S² (1 + ρ)/(1 − ρ)",
        (1 + rho) / (1 - rho) * S**2,
        E,
        [(1, own.conclusion), (2, cross.conclusion), (2 * S, leaks.conclusion), (-1, split.conclusion)],
    )
    lower = Certificate(
        "lower half",
        "g − Ω ≤ S² (1 + ρ)/(1 − ρ)",
        (1 + rho) / (1 - rho) * S**2,
        gap - omega,
        [(1, above.conclusion), (1, covers(1).conclusion)],
    )
    crossing = Certificate(
        "4d: ΔᵀGb",
        "ΔᵀGb ≥ −μS‖b‖₁",
        form(rise, b),
        -mu * S * b_sum,
        [(rise[i] * b[j], coherent(i, j)) for i in range(k) for j in range(k) if i != j],
        [(1 + mu) * x * y for x, y in zip(rise, b, strict=True)],
    )

    def upper(name: str, of_atoms: Expr, own_part: Fact) -> list[Certificate]:
        constant = of_atoms - 2 * mu * rho / (1 - rho)
        below = Certificate(
            f"4e: from below, {name}",
            "E ≥ (c − 2μρ/(1 − ρ)) S²",
            E,
            constant * S**2,
            [
                (1, own_part),
                (2, crossing.conclusion),
                (2 * mu * S, leaks.conclusion),
                (1, split.conclusion),
            ],
        )
        half = Certificate(
            f"upper half, {name}",
            "(c − 2μρ/(1 − ρ)) S² ≤ g + Ω",
            gap + omega,
            constant * S**2,
            [(1, below.conclusion), (1, covers(-1).conclusion)],
        )
        return [below, half]

    return Proof(
        [*in_both_forms(k), leak, thinking, not_thinking, minimum],
        [
            *(split, own, cross, leaks, above, lower, *coherence, crossing),
            *upper("c = (1 − μ(k − 1))/k", coherence_constant(k), coherence[-1].conclusion),
            *upper("c = c⋆", c, minimum),
        ],
    )


def signed_proof(k: int) -> Proof:
    """The primary form: a, b ≥ 0, and no sign is asked of a − b.

    Signed 3 has S ≥ 0. The upper half needs c > ρ²: c = ρ² + p with p ≥ 0, where c is c⋆ or,
    by 4c, the coherence constant.
    """
    a, b = vector("a", k), vector("b", k)
    a_sum, b_sum, p = Add(*a), Add(*b), Symbol("p", nonnegative=True)
    S, c = a_sum - b_sum, rho**2 + p
    leak, thinking, not_thinking, minimum = parts(a, b, a, c)
    a_aligned, b_aligned = aligned("signed 1: aᵀGa", a, a), aligned("signed 2: bᵀGb", b, b)
    kept = Certificate("signed 3: leakage", "‖a‖₁ ≤ S/(1 − ρ)", S / (1 - rho), a_sum, [(1 + t, leak)])
    above = Certificate(
        "signed 4: from above",
        "E ≤ ‖a‖₁² ≤ S²/(1 − ρ)²",
        S**2 / (1 - rho) ** 2,
        E,
        [(2 * a_sum, kept.conclusion), (1, a_aligned.conclusion), (-1, thinking)],
        [(S * (1 + t) - a_sum) ** 2, N.R**2],
    )
    lower = Certificate(
        "signed lower half",
        "(1 − ρ)² (g − Ω) ≤ S²",
        S**2,
        (1 - rho) ** 2 * (gap - omega),
        [((1 + t) ** -2, above.conclusion), ((1 + t) ** -2, covers(1).conclusion)],
    )
    below = Certificate(
        "signed 5: from below",
        "E ≥ (c − ρ²) ‖a‖₁²",
        E,
        (c - rho**2) * a_sum**2,
        [
            (1, minimum),
            (1, b_aligned.conclusion),
            (rho * a_sum + b_sum, leak),
            (1, thinking),
            (-1, not_thinking),
        ],
    )
    larger = Certificate(
        "signed 6: S and a",
        "S² ≤ ‖a‖₁²",
        a_sum**2,
        S**2,
        [(b_sum, leak)],
        [a_sum * b_sum, a_sum * b_sum / (1 + t)],
    )
    upper = Certificate(
        "signed upper half",
        "(c − ρ²) S² ≤ g + Ω",
        gap + omega,
        (c - rho**2) * S**2,
        [(1, below.conclusion), (p, larger.conclusion), (1, covers(-1).conclusion)],
    )
    return Proof(
        [*in_both_forms(k), leak, thinking, not_thinking, minimum],
        [*coherence_steps(a), a_aligned, b_aligned, kept, above, lower, below, larger, upper],
    )


def hull_proof(k: int) -> Proof:
    """That c⋆ ≥ (1 − μ(k − 1))/k and c⋆ ≥ m²/wᵀGw, and that non-negative least squares looks for w.

    w is any point of the simplex (`c_star` looks for the best, but nothing here needs that), v any other, y = Gw, and
    m ≥ 0 at most the least y_i.
    """
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
