"""A1 of a wide dictionary on a GPU: the same numbers as numpy's, without the Gram matrix."""

from dataclasses import astuple

import numpy as np
import pytest
import torch

from normprobe.theory.orthogonality import coherence, random_baseline


def random_atoms(n: int, d: int, device: torch.device) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator(device).manual_seed(0), device=device)


def test_the_device_gives_what_numpy_gives(device: torch.device) -> None:
    atoms = random_atoms(3000, 64, device)
    expected = coherence(atoms.cpu().numpy(), tile=700)
    np.testing.assert_allclose(astuple(coherence(atoms, tile=700)), astuple(expected), atol=1e-5)


def test_a_dictionary_of_65536_atoms_needs_no_gram_matrix(device: torch.device) -> None:
    """65,536 × 4,096: the atoms take 1 GiB, their Gram matrix would take 16."""
    if device.type == "cpu":
        pytest.skip("takes minutes on a CPU, which does not count its memory")
    atoms = random_atoms(65_536, 4096, device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = coherence(atoms)
    assert torch.cuda.max_memory_allocated() - before < 2 * 2**30
    assert found.mean_abs == pytest.approx(random_baseline(4096), rel=0.01)
