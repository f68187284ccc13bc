from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from normprobe.errors import NormprobeError
from normprobe.theory.orthogonality import c_star, coherence, random_baseline, unit_atoms, welch_bound

seeds = st.integers(0, 2**32 - 1)


def random_atoms(n: int, d: int, seed: int = 0) -> np.ndarray:
    return unit_atoms(np.random.default_rng(seed).normal(size=(n, d)))


@given(st.integers(2, 30), st.integers(2, 12), st.integers(1, 9), seeds)
def test_tiles_give_what_the_whole_gram_matrix_gives(n: int, d: int, tile: int, seed: int) -> None:
    atoms = np.random.default_rng(seed).normal(size=(n, d)) * 3
    unit = unit_atoms(atoms)
    cosines = (unit @ unit.T)[np.triu_indices(n, 1)]
    for found in (coherence(atoms, tile=tile), coherence(torch.from_numpy(atoms), tile=tile)):
        np.testing.assert_allclose(found.mean_abs, np.abs(cosines).mean(), atol=1e-12)
        np.testing.assert_allclose(found.mu_minus, max(0.0, -cosines.min()), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_torch_and_numpy_agree_in_every_precision(dtype: torch.dtype) -> None:
    atoms = torch.from_numpy(random_atoms(300, 64)).to(dtype)
    assert unit_atoms(atoms).dtype == torch.float32  # cosines are never taken in half precision
    theirs, ours = coherence(atoms, tile=128), coherence(atoms.float().numpy(), tile=128)
    np.testing.assert_allclose(astuple(theirs), astuple(ours), atol=1e-6)


def test_random_directions_meet_their_baseline_and_no_dictionary_beats_welch() -> None:
    found = coherence(random_atoms(800, 256).astype(np.float32), tile=300)
    assert found.mean_abs == pytest.approx(random_baseline(256), rel=0.01)
    assert found.max_abs > welch_bound(800, 256)
    assert random_baseline(2048) == pytest.approx(0.0176, abs=5e-5)
    assert welch_bound(8 * 2048, 2048) == pytest.approx(0.0207, abs=5e-5)
    assert welch_bound(4, 4) == 0


def test_the_welch_bound_is_attained_by_a_regular_simplex() -> None:
    corners = np.eye(4) - 0.25  # 4 directions in 3 dimensions
    assert coherence(corners).max_abs == pytest.approx(welch_bound(4, 3))


def test_one_atom_has_no_pair() -> None:
    found = coherence(np.ones((1, 3)))
    assert np.isnan(found.mean_abs)
    assert (found.max_abs, found.mu_minus) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_dead_or_broken_atom_is_refused(bad: float) -> None:
    atoms = np.ones((5, 3))
    atoms[2] = bad
    for array in (atoms, torch.from_numpy(atoms)):
        with pytest.raises(NormprobeError, match="got 1 of 5 that are not"):
            coherence(array)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(2, 16), seeds)
def test_c_star_is_the_minimum_over_the_simplex(k: int, d: int, seed: int) -> None:
    atoms = random_atoms(k, d, seed)
    gram = atoms @ atoms.T
    found = c_star(gram)
    start = np.full(k, 1 / k)
    rivals = np.random.default_rng(seed).dirichlet(np.full(k, 0.3), size=2000)
    assert found <= ((rivals @ gram) * rivals).sum(axis=1).min() + 1e-12
    slsqp = minimize(
        lambda w: w @ gram @ w,
        start,
        jac=lambda w: 2 * gram @ w,
        bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found == pytest.approx(slsqp.fun, abs=1e-5)


@given(st.integers(1, 60))
def test_k_orthogonal_atoms_have_one_over_k(k: int) -> None:
    assert c_star(np.eye(k)) == pytest.approx(1 / k)


def test_known_hulls() -> None:
    assert c_star(np.ones((3, 3))) == pytest.approx(1.0)  # one point, three times
    assert c_star(np.array([[1.0, -0.3], [-0.3, 1.0]])) == pytest.approx(0.35)
    assert c_star(np.array([[1.0, -1.0], [-1.0, 1.0]])) == pytest.approx(0.0, abs=1e-9)  # the hull holds 0
    assert np.isnan(c_star(np.zeros((0, 0))))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), seeds)
def test_c_star_is_sharper_than_coherence_and_falls_as_atoms_are_added(k: int, seed: int) -> None:
    atoms = random_atoms(k, 24, seed)
    gram = atoms @ atoms.T
    mu = coherence(atoms).mu_minus
    assert c_star(gram) >= (1 - mu * (k - 1)) / k - 1e-9
    assert c_star(gram) <= c_star(gram[:-1, :-1]) + 1e-6


def test_c_star_takes_a_float32_dictionary_of_a_thousand_atoms() -> None:
    atoms = np.random.default_rng(0).normal(size=(1000, 128)).astype(np.float32)
    atoms[:, 0] += 2  # a common direction keeps the hull away from 0
    unit = unit_atoms(atoms)
    assert 1e-4 < c_star(unit @ unit.T) < 1e-2


def test_what_is_no_gram_matrix_is_refused() -> None:
    with pytest.raises(NormprobeError, match="positive semi-definite"):
        c_star(np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(NormprobeError, match="finite"):
        c_star(np.array([[1.0, np.nan], [np.nan, 1.0]]))
