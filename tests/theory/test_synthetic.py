from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.theory.bound import slack_free_bound
from normprobe.theory.constants import overlap
from normprobe.theory.orthogonality import coherence
from normprobe.theory.synthetic import BROKEN, Pair, Planted, atoms_with_cosine, synthetic_pair


def measured(pair: Pair) -> dict[str, float]:
    constants = pair.constants()
    return {
        "A1": coherence(pair.atoms).mu_minus,
        "A2": float(constants.epsilon[0]),
        "A3": float(constants.delta[0]),
        "A4 (leakage)": float(constants.rho[0]),
        "A4 (drift)": float(constants.kappa[0]),
    }


def slack_free_holds(pair: Pair) -> bool:
    return bool(slack_free_bound(pair.lengths().gap, np.array(float(len(pair.a)))).holds(pair.s).all())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_with_exact_assumptions_the_slack_free_bound_holds(k: int, seed: int) -> None:
    pair = synthetic_pair(np.random.default_rng(seed), k=k)
    assert slack_free_holds(pair)
    np.testing.assert_allclose(list(measured(pair).values()), 0, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-0.2, 0.9),
    st.floats(0, 0.5),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
    st.integers(0, 9999),
)
def test_a_pair_has_exactly_the_constants_it_was_asked_for(
    cosine: float, epsilon: float, delta: float, rho: float, kappa: float, seed: int
) -> None:
    planted = Planted(cosine, epsilon, delta, rho, kappa)
    pair = synthetic_pair(np.random.default_rng(seed), planted, k=4)
    expected = [max(0.0, -cosine), epsilon, delta, rho, kappa]
    np.testing.assert_allclose(list(measured(pair).values()), expected, atol=1e-6)
    assert (pair.a >= pair.b).all()


@pytest.mark.parametrize("assumption", BROKEN)
def test_each_broken_assumption_breaks_the_bound_and_only_its_own_check_sees_it(assumption: str) -> None:
    rng = np.random.default_rng(0)
    pairs = [synthetic_pair(rng, BROKEN[assumption]) for _ in range(300)]
    assert not all(slack_free_holds(pair) for pair in pairs)
    for name, value in measured(pairs[0]).items():
        assert value == pytest.approx(
            max(map(abs, astuple(BROKEN[assumption]))) if name == assumption else 0, abs=1e-7
        )


def test_positive_cosines_cannot_break_it() -> None:
    rng = np.random.default_rng(0)
    assert all(slack_free_holds(synthetic_pair(rng, Planted(cosine=0.3), k=3)) for _ in range(300))


def test_atoms_that_cannot_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="cosine"):
        atoms_with_cosine(4, 8, -0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="k ≤ d"):
        atoms_with_cosine(9, 8, 0.0, np.random.default_rng(0))


def test_overlap_counts_features_and_not_their_size() -> None:
    think, no_think = np.array([[1.0, 9.0, 0.0, 0.0]]), np.array([[0.1, 0.0, 0.0, 2.0]])
    np.testing.assert_allclose(overlap(think, no_think), 1 / 3)
    np.testing.assert_allclose(overlap(think * 0, no_think * 0), 0)
