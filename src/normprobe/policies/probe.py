"""The probe: changes nothing, and keeps per request what LRS needs to know of its norms (arXiv 2606.06188).

Some scores need the last part of a response, and nobody knows which part that is before the end. So each request has a
series of `BLOCKS` sums over equally many tokens; when all are in use, neighbours are added up and a block holds twice
as many. Memory does not grow with the length, and any last part can be read off, to within one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int

from normprobe.errors import NormprobeError
from normprobe.policies.fused import peaks
from normprobe.policies.rows import Acting, Change, Rerun, Rows
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold

BLOCKS = 128
"""From 128 tokens on, between 64 and 128 blocks are in use: one holds at most a 64th of the response."""


@dataclass(frozen=True)
class Probe:
    """Records norms at the threshold's layers; 1 KiB per request and layer.

    threshold: a fixed one of τ = ∞ records norms without any being high.
    max_tokens: tokens of each request whose norms are also kept one by one, for a trace on demand
        (4 · layers · max_tokens bytes per request); 0 keeps none. Later tokens still enter all sums.
    """

    threshold: FixedThreshold | AdaptiveThreshold
    max_tokens: int = 0

    kind: ClassVar[str] = "probe"

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise NormprobeError(f"expected max_tokens ≥ 0, got {self.max_tokens}; 0 keeps no trace")

    @property
    def layers(self) -> tuple[int, ...]:
        return self.threshold.layers

    def start(self, n_slots: int, d: int, device: torch.device) -> Acting:
        return Probing(self, n_slots, device)


@dataclass(frozen=True)
class Summary:
    """What was seen of some requests, on the CPU; layers as in the probe, norms in activation units.

    n_tokens: rows seen. total: Σ norm. excess: Σ max(0, norm − τ). above: #(norm > τ). largest: max norm.
    width: tokens per block. total_by_block, excess_by_block: the same sums over block after block, 0 where none is yet.
    norm: the first `max_tokens` norms, NaN beyond what was seen.
    """

    n_tokens: Int[torch.Tensor, " request"]
    total: Float[torch.Tensor, "request layer"]
    excess: Float[torch.Tensor, "request layer"]
    above: Int[torch.Tensor, "request layer"]
    largest: Float[torch.Tensor, "request layer"]
    width: Int[torch.Tensor, " request"]
    total_by_block: Float[torch.Tensor, "request layer block"]
    excess_by_block: Float[torch.Tensor, "request layer block"]
    norm: Float[torch.Tensor, "request layer token"]

    def last(
        self, n_last: Int[torch.Tensor, " request"]
    ) -> tuple[Float[torch.Tensor, "request layer"], Float[torch.Tensor, "request layer"]]:
        """Σ norm and Σ max(0, norm − τ) over the last `n_last` tokens.

        Exact for responses of fewer than `BLOCKS` tokens. Else the block in which the last part begins enters in
        proportion to the tokens of it that belong there: off by at most width/4 times the range of values within it.
        """
        begin = torch.arange(self.total_by_block.shape[2]) * self.width[:, None]
        end = torch.minimum(begin + self.width[:, None], self.n_tokens[:, None])
        held = (end - begin).clamp_min(0)
        wanted = (end - (self.n_tokens - n_last)[:, None]).clamp_min(0).minimum(held)
        share = (wanted / held.clamp_min(1))[:, None]
        total, excess = self.total_by_block * share, self.excess_by_block * share
        return total.sum(dim=2), excess.sum(dim=2)


class Probing:
    """The sums by [layer, slot]; one slot more than there are requests takes what does not count."""

    def __init__(self, settings: Probe, n_slots: int, device: torch.device) -> None:
        self.settings = settings
        self.threshold = settings.threshold.start(n_slots, device)
        self._index = {layer: torch.tensor(i, device=device) for i, layer in enumerate(settings.layers)}
        self._spare = n_slots
        shape = (len(settings.layers), n_slots + 1)
        self._n = torch.zeros(shape, dtype=torch.int64, device=device)
        self._above = torch.zeros(shape, dtype=torch.int64, device=device)
        self._sums = torch.zeros((*shape, 2), dtype=torch.float64, device=device)  # of norm, of excess
        self._largest = torch.zeros(shape, device=device)
        self._width = torch.ones(shape, dtype=torch.int64, device=device)
        self._blocks = torch.zeros((*shape, BLOCKS, 2), device=device)
        self._norm = torch.full((*shape, settings.max_tokens + 1), torch.nan, device=device)
        self._seen: list[tuple[torch.Tensor, ...]] = []

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.threshold.reset(slots)
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._n.device)
        for kept in (self._n, self._above, self._sums, self._largest, self._blocks):
            kept[:, at] = 0
        self._width[:, at] = 1
        self._norm[:, at] = torch.nan

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """Nothing changes."""
        tau, eligible = self.threshold.tau(layer, rows.slot), rows.eligible
        norm, above = peaks(rows.hidden, tau, eligible)
        self.threshold.see(layer, rows.slot, norm, eligible)
        at = torch.where(eligible, rows.slot, self._spare)
        self._seen.append((self._index[layer], at, norm, tau, above))
        return Change(rows.hidden, torch.zeros_like(eligible))

    def finish(self) -> None:
        """The norms seen since the last call enter the sums, all layers at once."""
        self.threshold.finish()
        if not self._seen:
            return
        layer, at, norm, tau, above = map(torch.stack, zip(*self._seen, strict=True))
        self._seen.clear()
        index = layer[:, None]
        n = self._n[index, at]
        # The last column takes the tokens beyond max_tokens.
        self._norm[index, at, n.clamp_max(self.settings.max_tokens)] = norm
        self._n[index, at] = n + 1
        self._above[index, at] += above
        self._largest[index, at] = torch.maximum(self._largest[index, at], norm)
        both = torch.stack([norm, (norm - tau).clamp_min(0)], dim=-1)
        self._sums[index, at] += both
        self._blocks[index, at, n // self._width[index, at]] += both
        self._merge_full_series()

    def _merge_full_series(self) -> None:
        """Neighbouring blocks become one wherever none is free; over all slots, so that the shapes are always the same.

        At once and not when the next token comes: what a request has kept never depends on later passes.
        """
        full = self._n == BLOCKS * self._width
        first, second = self._blocks.chunk(2, dim=2)
        pairs = self._blocks[:, :, ::2] + self._blocks[:, :, 1::2]
        first.copy_(torch.where(full[..., None, None], pairs, first))
        second.masked_fill_(full[..., None, None], 0.0)
        self._width *= 1 + full.long()

    def summary(self, slots: Sequence[int]) -> Summary:
        """What was seen of these requests. Waits for the device, once."""
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._n.device)
        counts = (self._n, self._above, self._width, self._largest, *self._sums.unbind(-1))
        series = self._blocks[:, at].transpose(2, 3).flatten(2)
        trace = self._norm[:, at, : self.settings.max_tokens]
        # float64 holds every count and every float32 exactly, so that all can travel together.
        kept = torch.cat([torch.stack([count[:, at] for count in counts], dim=-1), series, trace], dim=-1)
        kept = kept.transpose(0, 1).cpu()
        n, above, width, largest, total, excess = kept[..., :6].unbind(-1)
        total_by_block, excess_by_block, norm = kept[..., 6:].split(
            [BLOCKS, BLOCKS, self.settings.max_tokens], dim=-1
        )
        return Summary(
            n.amax(dim=1).long(),  # an engine that holds some of the layers asks about those alone
            total.float(),
            excess.float(),
            above.long(),
            largest.float(),
            width.amax(dim=1).long(),
            total_by_block.float(),
            excess_by_block.float(),
            norm.float(),
        )
