"""The tokens that end each request, and the pass too many that asynchronous scheduling gives it after such a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from normprobe.engines.vllm.worker.eligible_rows import Placed


class Stops:
    """By slot. The scheduler learns a token only after it has scheduled the next pass, so the token that ends a request
    may still be fed to the model; what that shows is not the request's. Only the device knows then; no pass waits.

    One bit per slot and token of the vocabulary, so that memory does not depend on what requests ask for.
    """

    def __init__(self, n_slots: int, vocab: int, device: torch.device) -> None:
        self._vocab = vocab
        self._bits = torch.zeros(n_slots, -(-vocab // 8), dtype=torch.uint8, device=device)

    def set(self, parameters: Mapping[int, Any]) -> None:
        """By slot: the sampling parameters of its request."""
        for slot, given in parameters.items():
            ends = np.zeros(self._vocab, bool)
            stops = (given.eos_token_id, *(given.stop_token_ids or ()))
            ends[[token for token in stops if token is not None and 0 <= token < self._vocab]] = True
            self._bits[slot] = torch.from_numpy(np.packbits(ends, bitorder="little")).to(self._bits.device)

    def masked(self, placed: Placed, input_ids: Int[torch.Tensor, " token"]) -> Placed:
        """The rows whose own token ended their request are not eligible; a prompt may end in any token."""
        # A prompt may hold placeholders beyond the vocabulary.
        token = input_ids[placed.index].long().clamp(0, self._vocab - 1)
        ended = ((self._bits[placed.slot, token >> 3] >> (token & 7)) & 1).bool() & (placed.step > 0)
        return replace(placed, step=torch.where(ended, -1, placed.step))
