"""Muon in float32 against PyTorch's own, which computes in bfloat16."""

import pytest
import torch
from torch import nn

from normprobe.training.muon import Muon, orthogonalise

SHAPES = ((16, 16), (8, 24), (24, 8), (16, 16))


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_it_does_what_pytorchs_own_does() -> None:
    ours, theirs = parameters(), parameters()
    first, second = Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1)
    generator = torch.Generator().manual_seed(2)
    for step in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        if step == 0:  # not all take part
            ours[1].grad = theirs[1].grad = None
        before = [a.detach().clone() for a in ours]
        with torch.no_grad():
            for a, b in zip(ours, theirs, strict=True):
                b.copy_(a)  # each step alone: differences do not add up
        first.step()
        second.step()
        for a, b, old in zip(ours, theirs, before, strict=True):
            # bfloat16 keeps 8 bits in each of five iterations.
            assert torch.linalg.norm(a - b) <= 0.03 * torch.linalg.norm(b - old)
    states = second.state_dict()["state"]
    torch.testing.assert_close(first.state_dict()["state"], states)
    assert first.state_dict()["param_groups"] == second.state_dict()["param_groups"]


@pytest.mark.parametrize("shape", [(2, 12, 30), (2, 30, 12)])
def test_singular_values_end_near_one_and_singular_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    found = orthogonalise(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7)
    values = torch.linalg.svdvals(found)
    assert 0.3 < values.min() < values.max() < 1.5
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ found @ right.mT
    off = turned - torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-4


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected no closure"):
        Muon(parameters(), lr=0.1).step(lambda: 0.0)
