"""What an atom points at: neighbours against all cosines, tokens against the unembedding."""

import numpy as np
import torch

from normprobe.feature_pages.directions import NEIGHBOURS, logit_effects, neighbours
from normprobe.saes.dictionary import random_atoms


def test_neighbours_are_the_other_atoms_of_largest_cosine():
    atoms = random_atoms(16, 40, torch.Generator().manual_seed(0))
    indices, cosines = neighbours(atoms, [7, 0])
    for row, feature in enumerate([7, 0]):
        cosine = (atoms @ atoms[feature]).numpy()
        expected = [i for i in np.argsort(-cosine) if i != feature][:NEIGHBOURS]
        assert indices[row].tolist() == expected
        np.testing.assert_allclose(cosines[row], cosine[expected], rtol=1e-5)
    two, _ = neighbours(atoms[:2], [0, 1])
    assert two.tolist() == [[1], [0]]


def test_logit_effects_are_those_of_the_norms_weight_and_the_unembedding(opened):
    norm, unembedding = opened.anatomy.final_norm, opened.anatomy.unembedding
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, len(norm.weight)))
    atoms = random_atoms(opened.identity.d_model, 3, torch.Generator().manual_seed(0))
    effects = logit_effects(opened, atoms)
    expected = ((atoms * norm.weight) @ unembedding.weight.T).detach().numpy()[:, : len(opened.tokenizer)]
    for effect, exact in zip(effects, expected, strict=True):
        ratio = effect @ exact / (exact @ exact)
        np.testing.assert_allclose(effect, ratio * exact, atol=1e-3)
        assert ratio > 0
