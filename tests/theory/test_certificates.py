"""Every step of the theorem is an identity with signs; slips are found; the code computes what is certified."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sympy import Add, Expr, Rational, Symbol, lambdify, prime, sympify

from normprobe.theory import proof_bound, proof_slack
from normprobe.theory.bound import (
    Constants,
    Lengths,
    averaged_slack,
    coherence_constant,
    observable_slack,
    ordered_bound,
    signed_bound,
    slack,
)
from normprobe.theory.certificates import Certificate, Fact, Proof
from normprobe.theory.orthogonality import c_star, coherence, unit_atoms
from normprobe.theory.proof_bound import distance, hull_proof, mu, ordered_proof, signed_proof, t
from normprobe.theory.proof_slack import N, T, covers, covers_averages, epsilon, kappa, slack_proof, spread, u
from normprobe.theory.synthetic import Pair

FORMS: dict[str, Callable[[int], Proof]] = {
    "slack": lambda k: slack_proof(),
    "hull": hull_proof,
    "ordered": ordered_proof,
    "signed": signed_proof,
}
seeds = st.integers(0, 2**32 - 1)


def flaws(proof: Proof) -> list[str]:
    return [reason for _, reasons in proof.flaws() for reason in reasons]


@pytest.mark.parametrize(
    "form, k", [("slack", 0), *((form, k) for form in ("hull", "ordered", "signed") for k in (1, 2, 3))]
)
def test_every_step_is_proved_from_the_assumptions_and_each_of_them_is_used(form: str, k: int) -> None:
    proof = FORMS[form](k)
    assert flaws(proof) == []
    used = {fact for step in proof.steps for _, fact in step.weighted}
    assert set(proof.assumed) <= used


def test_both_forms_lean_on_the_slack_as_it_is_certified() -> None:
    certified = {step.conclusion for step in slack_proof().steps}
    assert {covers(1).conclusion, covers(-1).conclusion} <= certified


# Slips


def sign_slips(expression: Expr) -> Iterator[Expr]:
    """The expression with one term of one of its sums negated, at any depth."""
    for index, part in enumerate(expression.args):
        before, after = expression.args[:index], expression.args[index + 1 :]
        if isinstance(expression, Add):
            yield expression.func(*before, -part, *after)
        for slipped in sign_slips(part):
            yield expression.func(*before, slipped, *after)


def slips(certificate: Certificate) -> Iterator[Certificate]:
    """The certificate with one sign wrong: in a weight, a square, a fact, or in what it states."""
    for index, (weight, fact) in enumerate(certificate.weighted):
        before, after = certificate.weighted[:index], certificate.weighted[index + 1 :]
        for slipped in (-weight, *sign_slips(sympify(weight))):
            yield replace(certificate, weighted=[*before, (slipped, fact), *after])
        for slipped in sign_slips(fact.expression):
            wrong = replace(fact, expression=slipped)
            yield replace(certificate, weighted=[*before, (weight, wrong), *after])
    for index, square in enumerate(certificate.squares):
        before, after = certificate.squares[:index], certificate.squares[index + 1 :]
        for slipped in (-square, *sign_slips(square)):
            yield replace(certificate, squares=[*before, slipped, *after])
    for side in ("larger", "smaller"):
        for slipped in (-getattr(certificate, side), *sign_slips(getattr(certificate, side))):
            yield replace(certificate, **{side: slipped})


def refuted(certificate: Certificate) -> bool:
    """Whether a sign is missing, or the identity fails at one rational point, computed exactly."""
    unknowns = sorted(certificate.rest.free_symbols, key=str)
    point = {symbol: Rational(prime(20 + index), prime(60 + index)) for index, symbol in enumerate(unknowns)}
    return not certificate.signs_hold or certificate.rest.xreplace(point) != 0


@pytest.mark.parametrize("form", FORMS)
def test_no_slip_of_a_sign_goes_unseen(form: str) -> None:
    for certificate in FORMS[form](2).steps:
        wrong = list(slips(certificate))
        assert len(wrong) > 5
        assert not wrong[0].check()
        assert [slip for slip in wrong if not refuted(slip)] == []


def test_a_proof_with_a_hole_is_no_proof() -> None:
    x, y = (Symbol(name, nonnegative=True) for name in "xy")
    given_ = Fact("x ≥ y", x - y)
    step = Certificate("1", "x² ≥ xy", x**2, x * y, [(x, given_)])
    then = Certificate("2", "x² ≥ y²", x**2, y**2, [(1, step.conclusion), (y, given_)])
    assert flaws(Proof([given_], [step, then])) == []
    assert len(flaws(Proof([], [step, then]))) == 2  # nothing is given
    assert len(flaws(Proof([given_], [then, step]))) == 1  # 2 leans on what comes later
    signless = Symbol("z", real=True)
    assert not Certificate("", "", signless * x, signless * y, [(signless, given_)]).check()


# Facts are facts: what is assumed holds on real vectors, and then so does what is concluded.


def random_pair(rng: np.random.Generator, ordered: bool, k: int = 3) -> Pair:
    d = int(rng.integers(2, 8))
    b = rng.exponential(size=k) * rng.choice([0.0, 0.1, 0.5])
    a = rng.exponential(size=k) + (b if ordered else 0.0)
    sizes = 10.0 ** rng.uniform(-3, 1, size=(2, 1))
    atoms = unit_atoms(rng.normal(size=(k, d)) + rng.uniform(0, 2))
    return Pair(atoms, a, b, *(size * rng.normal(size=(2, d)) for size in sizes))


def values_of(pair: Pair) -> dict[Symbol, float]:
    """What the symbols stand for, measured on a pair."""
    constants, k = pair.constants(), len(pair.a)
    odds = {name: float(getattr(constants, name)[0]) for name in ("rho", "delta")}
    assume(max(odds.values()) < 1 - 1e-6)
    parts = {"h": pair.states, "r": pair.residual, "B": pair.semantic, "R": pair.reasoning}
    lengths = {
        getattr(mode, name): float(np.linalg.norm(part[row]))
        for name, part in parts.items()
        for row, mode in enumerate((T, N))
    }
    return lengths | {
        T.BR: float(pair.semantic[0] @ pair.reasoning[0]),
        N.BR: float(pair.semantic[1] @ pair.reasoning[1]),
        epsilon: float(constants.epsilon[0]),
        kappa: float(constants.kappa[0]),
        u: odds["delta"] / (1 - odds["delta"]),
        t: odds["rho"] / (1 - odds["rho"]),
        mu: coherence(pair.atoms).mu_minus,
        spread: 0.5,
        **{
            distance(i, j): float(np.linalg.norm(pair.atoms[i] - pair.atoms[j]))
            for i, j in combinations(range(k), 2)
        },
    }


def named(name: str, values: np.ndarray) -> dict[Symbol, float]:
    return dict(zip(proof_bound.vector(name, len(values)), values.tolist(), strict=True))


class Evaluated:
    """A proof's facts as functions of numbers."""

    def __init__(self, proof: Proof) -> None:
        self.facts = [*proof.assumed, *(step.conclusion for step in proof.steps)]
        self.symbols = sorted(set().union(*(fact.expression.free_symbols for fact in self.facts)), key=str)
        self.terms = lambdify(self.symbols, [list(Add.make_args(fact.expression)) for fact in self.facts])

    def violations(self, values: Mapping[Symbol, float]) -> list[str]:
        """Facts that are wrong by more than rounding, which is relative to the terms of a fact's sum."""
        found = []
        for fact, terms in zip(self.facts, self.terms(*(values[s] for s in self.symbols)), strict=True):
            total, room = sum(terms), 1e-10 * sum(map(abs, terms))
            if total < -room or (fact.equality and total > room):
                found.append(fact.why)
        return found


EVALUATED = {form: Evaluated(proof(3)) for form, proof in FORMS.items()}


@settings(max_examples=25)
@given(seeds)
def test_facts_of_the_ordered_form_hold_on_pairs(seed: int) -> None:
    pair = random_pair(np.random.default_rng(seed), ordered=True)
    c = c_star(pair.atoms @ pair.atoms.T)
    values = values_of(pair) | named("Δ", pair.a - pair.b) | named("b", pair.b) | {Symbol("c", real=True): c}
    assert EVALUATED["slack"].violations(values) == []
    assert EVALUATED["ordered"].violations(values) == []


@settings(max_examples=25)
@given(seeds)
def test_facts_of_the_signed_form_hold_on_pairs(seed: int) -> None:
    pair = random_pair(np.random.default_rng(seed), ordered=False)
    p = c_star(pair.atoms @ pair.atoms.T) - float(pair.constants().rho[0]) ** 2
    assume(p >= 0)
    values = values_of(pair) | named("a", pair.a) | named("b", pair.b) | {Symbol("p", nonnegative=True): p}
    assert EVALUATED["signed"].violations(values) == []


@settings(max_examples=25)
@given(seeds)
def test_facts_of_the_hull_hold_on_atoms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pair = random_pair(rng, ordered=True)
    gram, (w, v) = pair.atoms @ pair.atoms.T, rng.dirichlet(np.ones(3), size=2)
    image = gram @ w
    assume(image.min() >= 0)
    values = values_of(pair) | named("w", w) | named("v", v)
    values |= dict(zip((Symbol(f"y_{i}", real=True) for i in (1, 2, 3)), image.tolist(), strict=True))
    values |= {Symbol("m", nonnegative=True): float(image.min()), Symbol("τ", nonnegative=True): 0.3}
    values |= {Symbol("wGw", positive=True): float(w @ image), Symbol("vGv", real=True): float(v @ gram @ v)}
    assert EVALUATED["hull"].violations(values) == []


def test_a_wrong_assumption_is_seen_on_pairs() -> None:
    wrong = Fact("A1 with its sign turned", -proof_bound.coherent(0, 1).expression)
    values = {distance(0, 1): 1.0, mu: 0.0}  # a cosine of one half
    assert Evaluated(Proof([wrong], [])).violations(values) == [wrong.why]


# The code computes what is certified: its numbers, put for S, turn certified inequalities into equalities.

positive = st.fractions(Fraction(1, 50), 3, max_denominator=50)
shares = st.fractions(0, Fraction(49, 50), max_denominator=50)
(rise,), (a,), (b,) = (proof_bound.vector(name, 1) for name in "Δab")
STEPS = {form: {step.name: step for step in FORMS[form](1).steps} for form in ("ordered", "signed")}


def single(value: Fraction) -> np.ndarray:
    return np.array([float(value)])


@cache
def compiled(expression: Expr) -> tuple[tuple[Symbol, ...], Callable[..., Fraction]]:
    unknowns = tuple(sorted(expression.free_symbols, key=str))
    return unknowns, lambdify(unknowns, expression)


def number(expression: Expr, values: Mapping[Symbol, Fraction]) -> float:
    """The value at a rational point: exact until the last step."""
    unknowns, function = compiled(expression)
    return float(function(*(values[symbol] for symbol in unknowns)))


@settings(max_examples=60)
@given(st.tuples(*[positive] * 6), st.tuples(shares, shares, shares, shares), positive, shares)
def test_the_code_computes_what_is_certified(
    lengths: tuple[Fraction, ...], shared: tuple[Fraction, ...], c: Fraction, coherent: Fraction
) -> None:
    (eps, delta, rho, drifts), symbols = shared, (T.h, N.h, T.B, N.B, T.R, N.R)
    values = dict(zip(symbols, lengths, strict=True))
    values |= {epsilon: eps, kappa: drifts, u: delta / (1 - delta), t: rho / (1 - rho), mu: coherent}
    constants = Constants(*map(single, (eps, delta, rho, drifts)))
    squares = Lengths(*(single(length) ** 2 for length in lengths))

    omega = slack(constants, squares)
    assert omega[0] == pytest.approx(number(proof_slack.omega, values), rel=1e-12)
    observable = observable_slack(constants, squares.h_think, squares.h_no_think)
    assert observable[0] == pytest.approx(number(proof_slack.omega_observable, values), rel=1e-12)
    averaged = averaged_slack(omega, single(c), single(rho))
    assert averaged[0] == pytest.approx(
        number(covers_averages(1).larger, values | {spread: c - rho}), rel=1e-12
    )

    ordered = ordered_bound(squares.gap, omega, constants.rho, single(c), single(coherent))
    signed = signed_bound(squares.gap, omega, constants.rho, single(c))
    free = {Symbol("c", real=True): c, Symbol("p", nonnegative=True): c - rho**2}
    for bound, form, halves in (
        (ordered, "ordered", ("lower half", "upper half, c = c⋆")),
        (signed, "signed", ("signed lower half", "signed upper half")),
    ):
        for half, name in zip((bound.lower[0], bound.upper[0]), halves, strict=True):
            if 0 < half < np.inf:
                step = STEPS[form][name]
                s_alone = {rise: Fraction(half), a: Fraction(half), b: Fraction(0)}
                equal = [number(side, values | free | s_alone) for side in (step.larger, step.smaller)]
                room = 1e-12 * (squares.h_think + squares.h_no_think + omega)[0]
                assert equal[0] == pytest.approx(equal[1], abs=room)


@given(st.integers(1, 60), shares)
def test_the_codes_coherence_constant_is_the_certified_one(k: int, coherent: Fraction) -> None:
    certified = proof_bound.coherence_constant(k).subs(mu, Rational(coherent))
    assert coherence_constant(np.array([float(k)]), single(coherent))[0] == pytest.approx(
        float(certified), abs=1e-14
    )
