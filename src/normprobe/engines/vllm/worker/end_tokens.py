"""The tokens that end each request, and the pass too many that asynchronous scheduling gives it after such a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from normprobe.engines.vllm.worker.eligible_rows import EligibleRows


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
        # A prompt may hold placeholders beyond the vocabulary.
        token = input_ids[rows.index].long().clamp(0, self._vocab - 1)
        ended = ((self._bits[rows.slot, token >> 3] >> (token & 7)) & 1).bool() & (rows.step > 0)
        return replace(rows, step=torch.where(ended, -1, rows.step))
