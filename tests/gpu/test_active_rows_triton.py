"""The sums over active features as Triton kernels: the same numbers as the torch form on the CPU."""

from types import ModuleType

import pytest
import torch

from normprobe.saes import active_rows

CASES = pytest.mark.parametrize("rows, k, d, n", [(1, 1, 3, 5), (33, 4, 77, 50), (40, 7, 600, 9)])
"""Rows, k, width of a state, features: fewer than one block, several blocks, features with more pairs than one load."""


@pytest.fixture
def kernels(ops_triton: object) -> ModuleType:
    from normprobe.saes import active_rows_triton

    return active_rows_triton


def drawn(rows: int, k: int, d: int, n: int) -> tuple[torch.Tensor, ...]:
    """The codes of k features of n in each row, these features, atoms and a batch. The last feature never fires."""
    generator = torch.Generator().manual_seed(0)
    feature = torch.stack([torch.randperm(n - 1, generator=generator)[:k] for _ in range(rows)])
    codes = torch.randn(rows, k, generator=generator)
    return codes, feature, torch.randn(n, d, generator=generator), torch.randn(rows, d, generator=generator)


@CASES
def test_residuals_and_their_products(
    kernels: ModuleType, device: torch.device, rows: int, k: int, d: int, n: int
) -> None:
    given = drawn(rows, k, d, n)
    found = kernels.decoded(*(tensor.to(device) for tensor in given))
    for here, expected in zip(found, active_rows.decoded(*given), strict=True):
        torch.testing.assert_close(here.cpu(), expected, rtol=1e-4, atol=1e-4)


@CASES
def test_sums_by_feature(
    kernels: ModuleType, device: torch.device, rows: int, k: int, d: int, n: int
) -> None:
    codes, feature, _, batch = drawn(rows, k, d, n)
    weighted = [(codes, batch), (codes.abs(), 2 * batch)]
    found = kernels.summed(feature.to(device), n, [(c.to(device), b.to(device)) for c, b in weighted])
    for here, expected in zip(found, active_rows.summed(feature, n, weighted), strict=True):
        torch.testing.assert_close(here.cpu(), expected, rtol=1e-4, atol=1e-4)
        assert here[-1].eq(0).all()
