"""The site in a block's output, whole or in two halves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.engines.vllm.worker.residual_stream import Site, SiteInPlace
from normprobe.errors import NormprobeError
from normprobe.models.architectures import find_blocks
from normprobe.policies.rows import Change


@given(st.booleans(), st.booleans(), st.integers(0, 99))
def test_only_triggered_rows_change_and_hold_the_new_state(whole: bool, halved: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    halves = tuple(torch.randn(6, 3, generator=draw) for _ in range(1 + halved))
    index = torch.arange(6) if whole else torch.tensor([1, 4, 5])
    kept = [half.clone() for half in halves]
    site = Site.of(halves if halved else halves[0], 0)
    torch.testing.assert_close(site.at(index), sum(halves)[index], rtol=0, atol=0)
    acts = torch.rand(len(index), generator=draw) < 0.5
    new = torch.randn(len(index), 3, generator=draw)
    changed = site.changed(index, Change(new, acts))
    assert all(torch.equal(half, was) for half, was in zip(halves, kept, strict=True))
    assert torch.equal(changed.at(index)[acts], new[acts])
    others = torch.ones(6, dtype=torch.bool)
    others[index[acts]] = False
    for half, was in zip(changed.halves, halves, strict=True):
        assert torch.equal(half[others], was[others])
    in_place = SiteInPlace.of(halves if halved else halves[0], 0)
    came = in_place.at(index)
    before = came.clone()
    assert in_place.changed(index, Change(new, acts)) is in_place
    assert all(torch.equal(half, other) for half, other in zip(halves, changed.halves, strict=True))
    assert torch.equal(came, before)


def test_what_is_no_site_is_refused() -> None:
    with pytest.raises(NormprobeError, match="layer 3 to return"):
        Site.of((torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)), 3)
    with pytest.raises(NormprobeError, match="one list of 7 decoder blocks"):
        find_blocks(torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Identity()])}), 7)
