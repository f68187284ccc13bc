"""The probe: changes nothing, and keeps per request what LRS needs to know of its norms (arXiv 2606.06188).

Some scores need the last part of a response, and nobody knows which part that is before the end. So a summary has a
series of `BLOCKS` sums over equally many tokens, as many to a block as the length asks for; any last part can be read
off it, to within one block. While a response is written, its first tokens enter sums of their own, the next sums of
two, of four, and so on: nothing has to be added up again before the summary, and memory does not grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int

from normprobe.policies.policy import Cost, Counts, RunningPolicy, check_within
from normprobe.policies.rows import Change, ProbeSummary, Rerun, RowInts, Rows
from normprobe.policies.threshold import RunningThresholdPolicy, ThresholdPolicy

BLOCKS = 128
"""From 128 tokens on, between 64 and 128 blocks are in use: one holds at most a 64th of the response."""
HALF = BLOCKS // 2
"""Sums of each width 1, 2, 4, …; of the first there are twice as many."""
LEVELS = 16
"""Widths: room for 4 million tokens."""
CELLS = HALF * (LEVELS + 1)


@dataclass(frozen=True)
class Probe(ThresholdPolicy):
    """Records norms at the threshold's layers; 9 KiB per request and layer.

    threshold: a fixed one of τ = ∞ records norms without any being high.
    max_tokens: tokens of each request whose norms are also kept one by one, for a trace on demand
        (4 · layers · max_tokens bytes per request); 0 keeps none. Later tokens still enter all sums.
    """

    max_tokens: int = 0

    name: ClassVar[str] = "probe"
    kind: ClassVar[str] = "probe"
    counts: ClassVar[Counts] = {"max_tokens": "tokens"}

    def __post_init__(self) -> None:
        check_within("max_tokens", self.max_tokens, 0, hint="0 keeps no trace")

    def cost(self, state_bytes: int) -> Cost:
        """By layer two counters, three sums and the largest norm; the sums of blocks; the norms kept one by one."""
        by_layer = 2 * 8 + 3 * 8 + 4 + 2 * 4 * CELLS + 4 * (self.max_tokens + 1)
        return Cost(self.threshold.bytes_per_slot + len(self.layers) * by_layer)

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return RunningProbe(self, n_slots, device)


class RunningProbe(RunningThresholdPolicy):
    """A probe at work: its sums by [layer, slot]. One slot more takes the rows that do not count."""

    def __init__(self, settings: Probe, n_slots: int, device: torch.device) -> None:
        super().__init__(settings, n_slots, device)
        self.settings = settings
        self._spare = n_slots
        n_layers, n_slots = len(settings.layers), n_slots + 1
        self._places = dict(
            zip(settings.layers, torch.arange(n_layers, device=device)[:, None] * n_slots, strict=True)
        )
        self._every = torch.stack(list(self._places.values()))
        shape = (n_layers, n_slots)
        # Tokens seen, and the level of the sums that the next one enters; each of them is of 2^level tokens. By layer
        # too: where a pass holds several tokens of a request, one layer sees them all before the next sees any.
        self._n = torch.zeros(shape, dtype=torch.int64, device=device)
        self._level = torch.zeros(shape, dtype=torch.int64, device=device)
        # Of norm, of excess, of norms above τ.
        self._sums = torch.zeros(*shape, 3, dtype=torch.float64, device=device)
        self._largest = torch.zeros(shape, device=device)
        self._cells = torch.zeros(*shape, CELLS, 2, device=device)  # of norm, of excess
        self._norm = torch.full((*shape, settings.max_tokens + 1), torch.nan, device=device)
        self._pending: dict[int, tuple[torch.Tensor, ...]] = {}
        self._at: RowInts | None = None

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        super().reset(slots, requests)
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._n.device)
        for kept in (self._n, self._level, self._sums, self._largest, self._cells):
            kept[:, at] = 0
        self._norm[:, at] = torch.nan

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        eligible, (tau, norm, above) = rows.eligible, self.peaks(rows, layer)
        self._pending[layer] = (norm, tau, above)
        self._at = torch.where(eligible, rows.slot, self._spare)  # the same at every layer of a pass
        return Change(rows.hidden, torch.zeros_like(eligible))

    def finish(self) -> None:
        """Add the norms since the last call to the sums, all layers at once."""
        super().finish()
        if self._at is None:
            return
        norm, tau, above = map(torch.stack, zip(*self._pending.values(), strict=True))
        # An engine may hold some of the layers only.
        whole = len(self._pending) == len(self._places)
        base = self._every if whole else torch.stack([self._places[layer] for layer in self._pending])
        self._pending.clear()
        # Padding may be called eligible.
        at = self._at.remainder(self._spare + 1)
        self._at = None
        row = base + at
        flat = row.flatten()
        n, level = self._n.view(-1).index_select(0, flat), self._level.view(-1).index_select(0, flat)
        values = torch.stack([norm, (norm - tau).clamp_min_(0), above.to(norm.dtype)], dim=-1)
        self._sums.view(-1, 3).index_add_(0, flat, values.double().flatten(0, 1))
        self._largest.view(-1).scatter_reduce_(0, flat, norm.flatten(), "amax")
        cell = torch.add(n >> level, level, alpha=HALF)
        into = torch.add(cell, flat, alpha=CELLS)
        self._cells.view(-1, 2).index_add_(0, into, values[..., :2].flatten(0, 1))
        if self.settings.max_tokens:
            # The last column takes the tokens beyond max_tokens.
            columns = self.settings.max_tokens + 1
            into = torch.add(n.clamp_max(columns - 1), flat, alpha=columns)
            self._norm.view(-1).index_copy_(0, into, norm.flatten())
        n += 1
        self._n.view(-1).index_copy_(0, flat, n)
        self._level.view(-1).index_copy_(0, flat, level + (n >> level == BLOCKS))

    def summary(self, slots: Sequence[int]) -> ProbeSummary:
        """The sums of these requests. Waits for the device, once."""
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._n.device)
        n_layers, columns = len(self._places), self.settings.max_tokens
        parts = (
            torch.stack([self._n[:, at], self._level[:, at]], dim=-1),
            self._sums[:, at],
            self._largest[:, at, None],
            self._cells[:, at].flatten(2),
            self._norm[:, at, :columns],
        )
        # float64 holds every count and every float32 exactly, so that all can travel together.
        kept = torch.cat(parts, dim=-1).transpose(0, 1).cpu()
        n, level, total, excess, above, largest = kept[..., :6].unbind(-1)
        cells, norm = kept[..., 6:].split([2 * CELLS, columns], dim=-1)
        # An engine that holds some of the layers asks about those alone.
        n, level = n.amax(dim=1).long(), level.amax(dim=1).long()
        blocks = cells.new_zeros(len(at), n_layers, BLOCKS, 2)
        # Sums of what was filled so far go into blocks of the last width; the rest, all 0, into the last block.
        block = (_first_tokens() >> level[:, None]).clamp_max(BLOCKS - 1)
        index = block[:, None, :, None].expand(-1, n_layers, -1, 2)
        blocks.scatter_add_(2, index, cells.unflatten(2, (CELLS, 2)))
        total_by_block, excess_by_block = blocks.unbind(-1)
        return ProbeSummary(
            self.settings.layers,
            n,
            total.float(),
            excess.float(),
            above.long(),
            largest.float(),
            1 << level,
            total_by_block.float(),
            excess_by_block.float(),
            norm.float(),
        )


def _first_tokens() -> Int[torch.Tensor, " cell"]:
    """The number of the first token of each sum: 0 … 127, then 128, 130 … 254, then 256, 260 …"""
    level = torch.arange(LEVELS).repeat_interleave(HALF)
    return torch.cat([torch.arange(HALF), (torch.arange(HALF * LEVELS) % HALF + HALF) << level])
