"""A1 of a wide dictionary on a GPU: the same numbers as on the CPU, without the Gram matrix."""

from dataclasses import astuple

import numpy as np
import pytest
import torch

from normprobe.theory.orthogonality import coherence, random_baseline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def random_atoms(n: int, d: int) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(0)
    return torch.randn(n, d, generator=generator, device="cuda")


def test_the_gpu_gives_what_the_cpu_gives() -> None:
    atoms = random_atoms(3000, 256)
    on_cpu = coherence(atoms.cpu().numpy(), tile=700)
    np.testing.assert_allclose(astuple(coherence(atoms, tile=700)), astuple(on_cpu), atol=1e-5)


def test_a_dictionary_of_65536_atoms_needs_no_gram_matrix() -> None:
    """65,536 × 4,096: the atoms take 1 GiB, their Gram matrix would take 16."""
    atoms = random_atoms(65_536, 4096)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = coherence(atoms)
    assert torch.cuda.max_memory_allocated() - before < 2 * 2**30
    assert found.mean_abs == pytest.approx(random_baseline(4096), rel=0.01)
