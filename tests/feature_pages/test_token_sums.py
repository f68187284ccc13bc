"""How much of an activation the token's identity explains: against the definition, where it is all, where nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.feature_pages.token_sums import TokenSums, explained

N_IDS = 7


def sums_of(ids: np.ndarray, z: np.ndarray) -> TokenSums:
    sums = TokenSums(N_IDS, z.shape[1])
    for part in np.array_split(np.arange(len(ids)), 3):
        sums.add(ids[part], z[part])
    return sums


@given(st.integers(0, 100), st.integers(2, 40), st.integers(1, 40))
def test_it_is_the_r2_of_the_means_of_other_problems(seed, n, n_fitted):
    rng = np.random.default_rng(seed)
    ids, fitted = rng.integers(N_IDS, size=n), rng.integers(N_IDS - 2, size=n_fitted)
    z, z_fitted = rng.gamma(1, 1, (n, 3)), rng.gamma(1, 1, (n_fitted, 3))
    means = [z_fitted[fitted == token].mean(axis=0) if (fitted == token).any() else z_fitted.mean(axis=0)
             for token in range(N_IDS)]  # fmt: skip
    error = np.square(z - np.array(means)[ids]).sum(axis=0)
    expected = 1 - error / np.square(z - z.mean(axis=0)).sum(axis=0)
    np.testing.assert_allclose(explained(sums_of(fitted, z_fitted), sums_of(ids, z)), expected, rtol=1e-8)


def test_a_feature_of_tokens_is_explained_and_one_of_anything_else_is_not():
    rng = np.random.default_rng(0)
    both = []
    for n in (4000, 6000):
        ids = rng.integers(N_IDS, size=n)
        z = np.stack([(ids == 3) * 2.0, rng.gamma(1, 1, n), np.full(n, 0.1)], axis=1)
        both.append(sums_of(ids, z))
    of_token, of_nothing, constant = explained(*both)
    assert of_token == pytest.approx(1)
    assert -0.01 < of_nothing < 0.001
    assert np.isnan(constant)
