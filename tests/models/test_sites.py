"""Recording the residual stream: the latest pass, all of it, nothing kept, and an error where a hook saw nothing."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.models.sites import record_sites
from normprobe.problems.testbed.tokenizer import build_tokenizer

IDS = torch.arange(10, 22).reshape(2, 6)


@pytest.fixture
def opened(tiny_qwen3) -> OpenModel:
    return assemble(tiny_qwen3, build_tokenizer(), "tiny", check=False)


def hooks(opened: OpenModel) -> int:
    return sum(len(block._forward_hooks) for block in opened.blocks)


@torch.no_grad()
def test_sites_are_the_hidden_states(opened):
    with record_sites(opened) as sites:
        output = opened.model(IDS, output_hidden_states=True)
        assert all(
            torch.equal(*pair) for pair in zip(sites.states[:-1], output.hidden_states[1:-1], strict=True)
        )
        torch.testing.assert_close(opened.anatomy.final_norm(sites.states[-1]), output.hidden_states[-1])


@torch.no_grad()
def test_each_pass_replaces_the_last(opened):
    with record_sites(opened) as sites:
        opened.model(IDS)
        first = sites.states
        opened.model(IDS[:1, :3])
        assert [state.shape for state in sites.states] == [(1, 3, 32)] * 4
    torch.testing.assert_close(sites_alone(opened, IDS[:1, :3]), [state[:1, :3] for state in first])


def sites_alone(opened: OpenModel, ids: torch.Tensor) -> list[torch.Tensor]:
    with record_sites(opened) as sites:
        opened.model(ids)
        return sites.states


@torch.no_grad()
def test_the_base_model_alone_is_recorded_too(opened):
    with record_sites(opened) as sites:
        opened.model.base_model(IDS)
        assert all(torch.equal(*pair) for pair in zip(sites.states, sites_alone(opened, IDS), strict=True))


@torch.no_grad()
def test_nothing_is_kept_after_the_block(opened):
    with record_sites(opened) as sites:
        opened.model(IDS)
        site = weakref.ref(sites.states[1])
    gc.collect()
    assert site() is None
    assert hooks(opened) == 0


def test_hooks_are_removed_after_an_exception(opened):
    def fail() -> None:
        with record_sites(opened):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert hooks(opened) == 0


def test_no_forward_pass_is_an_error(opened):
    with pytest.raises(NormprobeError, match=r"no call of layers \[0, 1, 2, 3\]"), record_sites(opened):
        pass
    assert hooks(opened) == 0


@torch.no_grad()
def test_a_layer_that_a_later_pass_skips_is_an_error(opened):
    """The state of the earlier pass must not stand in for it."""
    with pytest.raises(NormprobeError, match=r"no call of layers \[2\]"), record_sites(opened) as sites:
        opened.model(IDS)
        opened.model.model.layers[2] = Skip()
        opened.model(IDS)
        _ = sites.states


class Skip(nn.Module):
    """A layer that a hook on the layer it replaced never sees."""

    attention_type = "full_attention"  # which Transformers reads of every layer in some versions

    def forward(self, hidden: torch.Tensor, **_: object) -> torch.Tensor:
        return hidden


class InTuple(nn.Module):
    """A decoder block as older and custom models have it: the hidden states come first in a tuple."""

    def __init__(self, block: nn.Module, pack) -> None:
        super().__init__()
        self.block, self.pack = block, pack

    def forward(self, *arguments: object, **options: object) -> object:
        return self.pack(self.block(*arguments, **options))


class Unpacked(nn.Module):
    attention_type = "full_attention"  # as above

    def __init__(self, block: nn.Module, unpack) -> None:
        super().__init__()
        self.block, self.unpack = block, unpack

    def forward(self, *arguments: object, **options: object) -> object:
        return self.unpack(self.block(*arguments, **options))


def repacked(opened: OpenModel, pack, unpack) -> OpenModel:
    """The same model, with blocks that return something else."""
    inner = [InTuple(block, pack) for block in opened.blocks]
    opened.model.model.layers = nn.ModuleList([Unpacked(block, unpack) for block in inner])
    return replace(opened, anatomy=replace(opened.anatomy, blocks=tuple(inner)))


@torch.no_grad()
def test_blocks_that_return_tuples_are_read_alike(opened):
    expected = sites_alone(opened, IDS)
    packed = repacked(opened, lambda hidden: (hidden, None), lambda output: output[0])
    assert all(torch.equal(*pair) for pair in zip(sites_alone(packed, IDS), expected, strict=True))


@pytest.mark.parametrize(
    "pack, unpack, told",
    [
        (lambda h: {"h": h}, lambda output: output["h"], "dict"),
        (lambda h: (None, h), lambda output: output[1], "NoneType"),
        (lambda h: h[None], lambda output: output[0], r"shape \(1, 2, 6, 32\)"),
    ],
)
@torch.no_grad()
def test_blocks_that_return_anything_else_are_refused(opened, pack, unpack, told):
    with pytest.raises(NormprobeError, match=f"layer 0 .*got .*{told}"):
        sites_alone(repacked(opened, pack, unpack), IDS)
