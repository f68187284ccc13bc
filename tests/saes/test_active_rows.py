"""Sums over active features, in torch and compiled: against products with codes of full width."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.saes import active_rows, active_rows_numba

KERNELS = pytest.mark.parametrize("kernels", [active_rows, active_rows_numba], ids=["torch", "numba"])
SHAPES = st.tuples(st.integers(0, 100), st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))


def drawn(seed: int, rows: int, k: int, d: int, n: int = 9):
    """k features of n in each row, their codes as a row has them and in full width, atoms and a batch."""
    generator = torch.Generator().manual_seed(seed)
    feature = torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(rows)])
    codes = torch.randn(rows, k, generator=generator)
    atoms, batch = torch.randn(n, d, generator=generator), torch.randn(rows, d, generator=generator)
    return feature, codes, torch.zeros(rows, n).scatter(1, feature, codes), atoms, batch


@KERNELS
@settings(deadline=None)
@given(SHAPES)
def test_residuals_and_their_products_with_active_atoms(kernels, shape):
    feature, codes, full, atoms, batch = drawn(*shape)
    residual, products = kernels.decoded(codes, feature, atoms, batch)
    torch.testing.assert_close(residual, full @ atoms - batch, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(products, (residual @ atoms.T).gather(1, feature), rtol=1e-4, atol=1e-4)


@KERNELS
@settings(deadline=None)
@given(SHAPES)
def test_sums_by_feature(kernels, shape):
    feature, codes, full, _, batch = drawn(*shape)
    first, second = kernels.summed(feature, 9, [(codes, batch), (codes.abs(), 2 * batch)])
    torch.testing.assert_close(first, full.T @ batch, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, full.abs().T @ (2 * batch), rtol=1e-4, atol=1e-5)


@KERNELS
@settings(deadline=None)
@given(st.integers(0, 100), st.sampled_from([(8, 8), (64, 3), (512, 16), (100, 7), (96, 12)]), st.booleans())
def test_the_largest_in_each_row(kernels, seed, size, tied):
    (width, k), generator = size, torch.Generator().manual_seed(seed)
    # Rows of unlike size: what one needs says little about the next.
    scale = torch.exp(3 * torch.randn(13, 1, generator=generator))
    rows, encoder = (
        torch.randn(13, 5, generator=generator) * scale,
        torch.randn(width, 5, generator=generator),
    )
    if tied:  # whole numbers, which no order of adding up rounds
        rows, encoder = rows.round(), encoder.round()
    bias = torch.randn(width, generator=generator).round()
    parts = rows @ encoder.T + bias
    values, index = kernels.largest(rows, encoder, bias, k, torch.empty_like(parts))
    close = {"rtol": 0.0, "atol": 0.0} if tied else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(values.sort(dim=1, descending=True).values, parts.topk(k).values, **close)
    torch.testing.assert_close(parts.gather(1, index), values, **close)
    assert all(len(set(row)) == k for row in index.tolist())


@KERNELS
def test_a_row_that_is_not_finite_stays_so(kernels):
    generator = torch.Generator().manual_seed(0)
    rows, encoder = torch.randn(4, 8, generator=generator), torch.randn(64, 8, generator=generator)
    rows[1] = float("nan")
    values, index = kernels.largest(rows, encoder, torch.zeros(64), 5, torch.empty(4, 64))
    assert values.isfinite().all(dim=1).tolist() == [True, False, True, True]
    assert bool(((index >= 0) & (index < 64)).all())


def test_threads_share_the_work_to_the_same_bytes(monkeypatch):
    feature, codes, _, atoms, batch = drawn(0, 101, 5, 16)
    encoder = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))

    def everything() -> list[torch.Tensor]:
        sums = active_rows_numba.summed(feature, 9, [(codes, batch)])
        decoded = active_rows_numba.decoded(codes, feature, atoms, batch)
        room = torch.empty(101, 64)
        return [*active_rows_numba.largest(batch, encoder, torch.zeros(64), 5, room), *decoded, *sums]

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = everything()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    values, index, *others = everything()
    assert torch.equal(values.sort(dim=1).values, alone[0].sort(dim=1).values)
    assert torch.equal(index.sort(dim=1).values, alone[1].sort(dim=1).values)
    assert all(map(torch.equal, others, alone[2:]))
