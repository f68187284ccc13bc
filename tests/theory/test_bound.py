"""The bound is algebra: measured on the same pair it can never fail, and at the extremal pairs it is met exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from normprobe.theory.bound import (
    PAPER,
    PAPER_MU,
    ROUNDING,
    Bound,
    Constants,
    Lengths,
    averaged_slack,
    coherence_constant,
    observable_slack,
    ordered_bound,
    signed_bound,
    slack,
    slack_free_bound,
)
from normprobe.theory.constants import delta, drift, epsilon, leakage
from normprobe.theory.orthogonality import c_star, coherence, unit_atoms
from normprobe.theory.synthetic import Pair

seeds = st.integers(0, 2**32 - 1)


def random_pair(seed: int, ordered: bool) -> Pair:
    """Anything at all: random atoms, sparse activations, semantic and residual parts of any size and direction."""
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(1, 9)), int(rng.integers(2, 24))
    atoms = unit_atoms(rng.normal(size=(k, d)))
    b = rng.exponential(size=k) * (rng.random(k) < 0.5) * rng.choice([0.01, 0.1, 0.5])
    a = rng.exponential(size=k) * (rng.random(k) < 0.7) + (b if ordered else 0)
    a[0] = max(a[0], b.sum() + 0.1)  # so that ρ < 1, as the theorem asks
    semantic = rng.normal(size=(1, d)) * rng.uniform(0, 3) + rng.normal(size=(2, d)) * 10.0 ** rng.uniform(
        -4, 0
    )
    residual = rng.normal(size=(2, d)) * 10.0 ** rng.uniform(-4, 0)
    return Pair(atoms, a, b, semantic, residual)


def constants_of_atoms(pair: Pair, on: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(coherence form, c⋆) for the atoms in `on`, and μ₋ of all atoms."""
    atoms = pair.atoms[on]
    mu = np.array(coherence(pair.atoms).mu_minus)
    k = np.array([float(on.sum())])
    return coherence_constant(k, mu), np.array([c_star(atoms @ atoms.T)]), mu


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_the_signed_form_never_fails(seed: int) -> None:
    pair = random_pair(seed, ordered=False)
    constants, lengths = pair.constants(), pair.lengths()
    coherence_c, sharp_c, _ = constants_of_atoms(pair, pair.a > 0)
    omega = slack(constants, lengths)
    for c in (coherence_c, sharp_c):
        for allowed in (omega, observable_slack(constants, lengths.h_think, lengths.h_no_think)):
            assert signed_bound(lengths.gap, allowed, constants.rho, c).holds(pair.s).all()


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_the_ordered_form_never_fails(seed: int) -> None:
    pair = random_pair(seed, ordered=True)
    constants, lengths = pair.constants(), pair.lengths()
    coherence_c, sharp_c, mu = constants_of_atoms(pair, pair.a - pair.b > 0)
    omega = slack(constants, lengths)
    for c in (coherence_c, sharp_c):
        for allowed in (omega, observable_slack(constants, lengths.h_think, lengths.h_no_think)):
            assert ordered_bound(lengths.gap, allowed, constants.rho, c, mu).holds(pair.s).all()


@settings(max_examples=200, deadline=None)
@given(seeds, st.booleans())
def test_the_gap_of_mean_squared_norms_never_fails_with_the_averaged_slack(seed: int, ordered: bool) -> None:
    """Tokens scatter around the mean states; what is seen are mean ‖h‖² and not ‖h̄‖²."""
    rng = np.random.default_rng(seed)
    pair = random_pair(seed, ordered)
    measured = []
    for state in pair.states:
        scatter = rng.normal(size=(int(rng.integers(1, 30)), len(state))) * rng.uniform(0, 5)
        tokens = state + scatter - scatter.mean(axis=0)
        measured.append((tokens**2).sum(axis=1).mean(keepdims=True))
    constants, lengths = pair.constants(), pair.lengths()
    spreads = measured[0] - lengths.h_think, measured[1] - lengths.h_no_think
    omega = averaged_slack(slack(constants, lengths), *spreads)
    gap = measured[0] - measured[1]
    _, c, mu = constants_of_atoms(pair, pair.a > 0)
    assert signed_bound(gap, omega, constants.rho, c).holds(pair.s).all()
    if ordered:
        assert ordered_bound(gap, omega, constants.rho, c, mu).holds(pair.s).all()


@given(seeds)
def test_the_slack_covers_the_gap_and_the_observable_slack_covers_the_slack(seed: int) -> None:
    pair = random_pair(seed, ordered=False)
    constants, lengths = pair.constants(), pair.lengths()
    omega = slack(constants, lengths)
    assert np.abs(lengths.gap - (lengths.r_think - lengths.r_no_think)) <= omega * (1 + 1e-9) + 1e-12
    assert omega <= observable_slack(constants, lengths.h_think, lengths.h_no_think) * (1 + 1e-9)


@given(seeds)
def test_c_star_is_never_looser_than_coherence(seed: int) -> None:
    pair = random_pair(seed, ordered=True)
    constants, lengths = pair.constants(), pair.lengths()
    coherence_c, sharp_c, mu = constants_of_atoms(pair, pair.a - pair.b > 0)
    omega = slack(constants, lengths)
    loose, sharp = (ordered_bound(lengths.gap, omega, constants.rho, c, mu) for c in (coherence_c, sharp_c))
    assert (sharp.upper <= loose.upper * (1 + 1e-6)).all()


@given(st.integers(1, 40), st.floats(0.1, 10))
def test_equality_at_k_equal_orthogonal_features(k: int, size: float) -> None:
    pair = Pair(
        np.eye(64)[:k], np.full(k, size), np.zeros(k), np.tile(np.eye(64)[63], (2, 1)), np.zeros((2, 64))
    )
    constants, lengths = pair.constants(), pair.lengths()
    np.testing.assert_allclose(pair.s, np.sqrt(k * lengths.gap))
    c = coherence_constant(np.array([float(k)]), np.array(0.0))
    ordered = ordered_bound(lengths.gap, slack(constants, lengths), constants.rho, c, np.array(0.0))
    np.testing.assert_allclose(ordered.upper, pair.s)
    assert not slack_free_bound(lengths.gap, np.array(k - 1.0)).holds(pair.s).any()  # and √k is needed


@given(st.floats(0.0, 0.9), st.floats(0.1, 10))
def test_the_lower_half_is_met_by_a_single_leaking_feature(rho: float, size: float) -> None:
    atoms = np.eye(4)[:1]
    pair = Pair(
        atoms, np.array([size]), np.array([rho * size]), np.tile(np.eye(4)[3], (2, 1)), np.zeros((2, 4))
    )
    constants, lengths = pair.constants(), pair.lengths()
    ordered = ordered_bound(
        lengths.gap, slack(constants, lengths), constants.rho, np.array(1.0), np.array(0.0)
    )
    np.testing.assert_allclose(ordered.lower, pair.s, rtol=1e-6)


@given(st.floats(0.0, 0.9), st.floats(0.1, 10))
def test_the_signed_lower_half_is_met_where_the_leak_cancels(rho: float, size: float) -> None:
    """a on one atom; b on two opposite ones, so that R_N = 0 while ‖b‖₁ = ρ‖a‖₁."""
    atoms = np.eye(4)[[0, 1, 1]] * np.array([[1], [1], [-1]])
    a, b = np.array([size, 0, 0]), np.array([0, 0.5, 0.5]) * rho * size
    pair = Pair(atoms, a, b, np.tile(np.eye(4)[3], (2, 1)), np.zeros((2, 4)))
    constants, lengths = pair.constants(), pair.lengths()
    signed = signed_bound(lengths.gap, slack(constants, lengths), constants.rho, np.array(1.0))
    np.testing.assert_allclose(signed.lower, pair.s, rtol=1e-6)


@pytest.mark.parametrize("half", ["lower", "upper"])
def test_a_search_over_all_pairs_comes_within_one_percent_of_each_half(half: str) -> None:
    """So neither half can be improved by more, with two atoms in three dimensions and all constants free."""

    def pair_at(x: np.ndarray) -> Pair:
        atoms, b, rise, rest = (
            unit_atoms(x[:6].reshape(2, 3)),
            x[6:8] ** 2,
            x[8:10] ** 2,
            x[10:].reshape(4, 3),
        )
        return Pair(atoms, rise + b, b, rest[:2], rest[2:])

    def untightness(x: np.ndarray) -> float:
        pair = pair_at(x)
        constants, lengths = pair.constants(), pair.lengths()
        mu = np.maximum(-pair.atoms[0] @ pair.atoms[1], np.zeros(1))
        c = coherence_constant(np.array([2.0]), mu)
        bound = ordered_bound(lengths.gap, slack(constants, lengths), constants.rho, c, mu)
        return -float((bound.lower / pair.s if half == "lower" else pair.s / bound.upper)[0])

    rng = np.random.default_rng(2)
    starts = rng.normal(size=(40, 22)) * np.repeat([1.0, 0.2], [10, 12])  # small semantic parts and residuals
    found = minimize(untightness, min(starts, key=untightness), method="L-BFGS-B", options={"maxfun": 800})
    assert 0.99 <= -found.fun <= 1 + ROUNDING


constant_values = st.floats(0, 0.9)


@given(st.tuples(*[constant_values] * 4), st.tuples(*[st.floats(0.01, 100)] * 6), constant_values)
def test_the_slack_grows_with_each_constant(
    values: tuple[float, ...], squares: tuple[float, ...], more: float
) -> None:
    lengths = Lengths(*(np.array([square]) for square in squares))

    def slacks(constants: dict[str, float]) -> np.ndarray:
        measured = Constants(**{name: np.array([value]) for name, value in constants.items()})
        return np.array(
            [slack(measured, lengths), observable_slack(measured, lengths.h_think, lengths.h_no_think)]
        )

    constants = dict(zip(("epsilon", "delta", "rho", "kappa"), values, strict=True))
    for name, value in constants.items():
        larger = constants | {name: value + more * (0.99 - value)}
        assert (slacks(larger) >= slacks(constants) * (1 - 1e-12)).all()


@given(
    st.floats(-5, 5), st.floats(0, 2), constant_values, st.floats(0.01, 1), constant_values, st.floats(0, 1)
)
def test_both_halves_widen_with_slack_leakage_and_coherence(
    gap: float, omega: float, rho: float, c: float, mu: float, more: float
) -> None:
    def halves(**changed: float) -> tuple[Bound, Bound]:
        of = {"gap": gap, "omega": omega, "rho": rho, "c": c, "mu": mu} | changed
        inputs = {name: np.array([value]) for name, value in of.items()}
        return ordered_bound(**inputs), signed_bound(*(inputs[name] for name in ("gap", "omega", "rho", "c")))

    looser = {"omega": omega + more, "rho": rho + more * (0.95 - rho), "c": c * (1 - more), "mu": mu + more}
    for name, value in looser.items():
        for narrow, wide in zip(halves(), halves(**{name: value}), strict=True):
            assert wide.lower <= narrow.lower + 1e-12
            assert wide.upper >= narrow.upper * (1 - 1e-12)


def test_the_mean_of_squared_norms_needs_the_spread() -> None:
    """The measured gap (of mean squared norms) differs from the gap of the mean states by V_T − V_N, exactly."""
    rng = np.random.default_rng(0)
    think, no_think = rng.normal(size=(200, 5, 8)) * 2 + 1, rng.normal(size=(200, 5, 8)) + 1
    of_mean = [(states.mean(axis=1) ** 2).sum(axis=1) for states in (think, no_think)]
    measured = [(states**2).sum(axis=2).mean(axis=1) for states in (think, no_think)]
    spreads = [square - mean for square, mean in zip(measured, of_mean, strict=True)]
    moved = np.abs((measured[0] - measured[1]) - (of_mean[0] - of_mean[1]))
    np.testing.assert_allclose(averaged_slack(np.zeros(200), *spreads), moved, atol=1e-9)


def test_where_the_theorem_says_nothing_it_says_so() -> None:
    gap, omega, one = np.array([4.0]), np.array([1.0]), np.array([1.0])
    assert signed_bound(gap, omega, np.array([1.0]), one).vacuous.all()
    for rho in (1.5, np.inf):
        assert np.isneginf(signed_bound(gap, omega * 9, np.array([rho]), one).lower).all()
    assert ordered_bound(gap, omega, np.array([np.inf]), one, one * 0).vacuous.all()
    too_much_slack = signed_bound(gap, np.array([5.0]), one * 0, one)
    assert too_much_slack.lower_vacuous.all()
    assert not too_much_slack.upper_vacuous.any()
    too_coherent = signed_bound(gap, omega, one * 0, np.array([-0.05]))
    assert too_coherent.upper_vacuous.all()
    assert not too_coherent.lower_vacuous.any()
    assert np.isinf(observable_slack(Constants(one, one, one, one), gap, gap)).all()
    assert Bound(one * -np.inf, one * np.inf).holds(np.array([-3.0])).all()


def test_the_papers_own_thresholds_are_vacuous_where_the_theorem_file_says() -> None:
    k = np.array([49.0, 50.0, 51.0, 52.0])
    leaking = coherence_constant(k, PAPER_MU) - 2 * PAPER_MU * PAPER.rho / (1 - PAPER.rho)
    assert (coherence_constant(k, PAPER_MU) > 1e-9).tolist() == [True, True, False, False]
    assert not (leaking > 0)[0]
    # the lower half needs a ratio of norms of 1.27, or 2.25 where R² = 0.95 means ε = √0.05
    for eps, needed in ((0.05, 1.27), (np.sqrt(0.05), 2.25)):
        constants = Constants(np.array(eps), PAPER.delta, PAPER.rho, PAPER.kappa)
        ratios = np.array([needed - 0.01, needed + 0.01]) ** 2
        gap = ratios - 1
        omega = observable_slack(constants, ratios, np.ones(2))
        assert (gap > omega).tolist() == [False, True]


def test_estimators_on_known_vectors() -> None:
    np.testing.assert_allclose(epsilon(np.array([0.25]), np.array([1.0])), 0.5)
    np.testing.assert_allclose(
        delta(np.array([-0.5, 0.0]), np.array([1.0, 0.0]), np.array([4.0, 1.0])), [0.25, 0.0]
    )
    np.testing.assert_allclose(drift(np.array([3.0]), np.array([4.0])), 0.25)
    a, b = np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(leakage(a, b), [0.5, np.inf])
