"""Matched atoms: a permuted copy comes back whole, the matching is the best, random atoms find partners too."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.saes.dictionary import Dictionary, random_atoms, random_dictionary, topk_sae
from normprobe.saes.stability import matched_cosines
from normprobe.saes.training import generator_for

METADATA = {"hook_name": "blocks.0.hook_resid_post"}


def of(atoms: torch.Tensor) -> Dictionary:
    width, d = atoms.shape
    return Dictionary.of(topk_sae(atoms, atoms, torch.zeros(width), torch.zeros(d), 1, METADATA))


def drawn(seed: int, width: int = 60, d: int = 16) -> Dictionary:
    return Dictionary.of(random_dictionary(d, width, 1, METADATA, generator_for(seed)))


def test_features_in_another_order_are_the_same_features():
    own = drawn(0)
    order = torch.randperm(own.width, generator=generator_for(1))
    np.testing.assert_allclose(matched_cosines(own, of(own.atoms[order])), 1, atol=1e-6)
    half = own.atoms.clone()
    half[30:] = drawn(2).atoms[30:]
    found = matched_cosines(own, of(half[order]))
    np.testing.assert_allclose(found[:30], 1, atol=1e-6)
    assert (found[30:] < 1).all()


@given(st.integers(1, 5), st.integers(0, 50))
def test_no_matching_is_better(width, seed):
    own, other = (of(random_atoms(4, width, generator_for(seed, i))) for i in range(2))
    cosines = (own.atoms @ other.atoms.T).numpy()
    best = max(sum(cosines[i, j] for i, j in enumerate(order)) for order in permutations(range(width)))
    assert matched_cosines(own, other).sum() == pytest.approx(best, abs=1e-5)


def test_random_atoms_find_partners_the_fewer_the_dimensions_the_nearer():
    near, far = (matched_cosines(drawn(0, d=d), drawn(1, d=d)).mean() for d in (8, 128))
    assert near > 0.5 > far > 0.1
