"""The rows of a forward pass on which policies act: which slot they belong to, at which step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from normprobe.engines.vllm.worker.slots import ActiveRequest
from normprobe.policies.rows import RowFloats, RowInts


@dataclass(frozen=True)
class PassLayout:
    """The requests of a forward pass as the model runner has them, on the host, in the order of its batch.

    start: the first row of each request, and the end of the last. computed: tokens of each request before this pass.
    prompt: tokens of each prompt.
    """

    requests: Sequence[str]
    start: Int[np.ndarray, " request_and_end"]
    computed: Int[np.ndarray, " request"]
    prompt: Int[np.ndarray, " request"]


@dataclass(frozen=True)
class EligibleRows:
    """Eligible rows of one policy in a pass, at most one per slot.

    index: rows of the pass. slot, step: see `normprobe.policies.rows`. request: positions in the batch.
    position: of the token in its request, from 0. entropy: as in `Rows`, where the policy reads it.
    On the device: index, slot, step, entropy. On the host: request, position.
    """

    index: RowInts
    slot: RowInts
    step: RowInts
    request: Int[np.ndarray, " row"]
    position: Int[np.ndarray, " row"]
    entropy: RowFloats | None = None

    def next(self) -> EligibleRows:
        """The same requests' next tokens, one each, in the same rows of the next pass; without entropies."""
        return EligibleRows(self.index, self.slot, self.step + 1, self.request, self.position + 1)


def eligible_rows(
    layout: PassLayout, active: Mapping[str, ActiveRequest], device: torch.device
) -> dict[str, list[EligibleRows]]:
    """The eligible rows by policy. After the first entry, each further one holds later tokens of the same requests.

    A pass usually holds one eligible row of a request; it holds several when a preempted one is computed again.
    """
    by_place = [active.get(request) for request in layout.requests]
    found: dict[str, list[EligibleRows]] = {}
    for policy in dict.fromkeys(one.policy for one in by_place if one is not None):
        places = np.array([i for i, one in enumerate(by_place) if one is not None and one.policy == policy])
        slot = np.array([one.slot for one in by_place if one is not None and one.policy == policy])
        found[policy] = list(_by_rank(layout, places, slot, device))
    return {policy: ranks for policy, ranks in found.items() if ranks}


def _by_rank(
    layout: PassLayout,
    places: Int[np.ndarray, " request"],
    slot: Int[np.ndarray, " request"],
    device: torch.device,
) -> Iterator[EligibleRows]:
    """First the first eligible row of each request, then the second of those that have one, and so on.

    places: of the policy's requests in the batch.
    """
    start, computed, prompt = (
        x[places].astype(np.int64) for x in (layout.start[:-1], layout.computed, layout.prompt)
    )
    end = computed + layout.start[1:][places] - start
    first = np.maximum(computed, prompt - 1)
    for rank in range(max(int((end - first).max()), 0)):
        at = np.flatnonzero(first + rank < end)
        position = first[at] + rank
        rows = np.stack([start[at] + position - computed[at], slot[at], position - prompt[at] + 1])
        index, slots, step = torch.from_numpy(rows).to(device, non_blocking=True)
        yield EligibleRows(index, slots, step, places[at], position)


class RowsInTurn:
    """The eligible rows of pass after pass.

    Most passes are decode steps of the batch of the pass before, whose rows differ in step and position alone: these
    are advanced where they are, and nothing is copied to the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: PassLayout | None = None
        self._held: list[ActiveRequest | None] = []
        self._rows: dict[str, list[EligibleRows]] = {}

    def of(self, layout: PassLayout, active: Mapping[str, ActiveRequest]) -> dict[str, list[EligibleRows]]:
        """As `eligible_rows` gives them, of the pass that comes next."""
        held = [active.get(request) for request in layout.requests]
        if held == self._held and self._goes_on(layout):
            self._rows = {policy: [rows.next()] for policy, (rows,) in self._rows.items()}
        else:
            self._rows = eligible_rows(layout, active, self._device)
        # Copies: the model runner writes the next pass into the same memory.
        arrays = (layout.start, layout.computed, layout.prompt)
        self._last = PassLayout(layout.requests, *(array.copy() for array in arrays))
        self._held = held
        return self._rows

    def _goes_on(self, layout: PassLayout) -> bool:
        """Whether each slot's request has one token in this pass as in the last, all of them eligible then."""
        last = self._last
        return (
            last is not None
            and int(layout.start[-1]) == int(last.start[-1]) == len(layout.requests)
            and bool((layout.computed == last.computed + 1).all() and (layout.prompt == last.prompt).all())
            and sum(one is not None for one in self._held)
            == sum(len(rows.position) for ranks in self._rows.values() for rows in ranks)
        )


class EndTokens:
    """The tokens that end a request, by slot.

    The scheduler learns a token only after it has scheduled the next pass, so the token that ends a request may still
    be fed to the model; that pass must not count as the request's. Only the device knows then; no pass waits.

    One bit per slot and token of the vocabulary, so that memory does not depend on what requests ask for.
    """

    def __init__(self, n_slots: int, vocab: int, device: torch.device) -> None:
        self._vocab = vocab
        self._bits = torch.zeros(n_slots, -(-vocab // 8), dtype=torch.uint8, device=device)

    def set(self, parameters: Mapping[int, Any]) -> None:
        """Set the tokens of some slots, from the sampling parameters of the requests that now have them."""
        for slot, given in parameters.items():
            ends = np.zeros(self._vocab, bool)
            tokens = (given.eos_token_id, *(given.stop_token_ids or ()))
            ends[[token for token in tokens if token is not None and 0 <= token < self._vocab]] = True
            self._bits[slot] = torch.from_numpy(np.packbits(ends, bitorder="little")).to(self._bits.device)

    def masked(self, rows: EligibleRows, input_ids: Int[torch.Tensor, " token"]) -> EligibleRows:
        """The rows, of which those whose own token ended their request are not eligible (step −1).

        A prompt may end in any token.
        """
        return replace(rows, step=self.steps(rows.slot, rows.step, input_ids[rows.index]))

    def steps(self, slot: RowInts, step: RowInts, tokens: RowInts) -> RowInts:
        """The steps of rows with these tokens; −1 where the token ended the request."""
        # A prompt may hold placeholders beyond the vocabulary.
        token = tokens.long().clamp(0, self._vocab - 1)
        ended = ((self._bits[slot, token >> 3] >> (token & 7)) & 1).bool() & (step > 0)
        return torch.where(ended, -1, step)
