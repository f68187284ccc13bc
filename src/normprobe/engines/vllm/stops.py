"""The tokens that end each request, and the pass too many that asynchronous scheduling gives it after such a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int

from normprobe.engines.vllm.placement import Placed


class Stops:
    """By slot. The scheduler learns a token only after it has scheduled the next pass, so the token that ends a request
    may still be fed to the model; what that shows is not the request's. Only the device knows then: nothing waits."""

    def __init__(self, n_slots: int, device: torch.device) -> None:
        self._tokens = torch.full((n_slots, 1), -1, dtype=torch.int64, device=device)

    def set(self, parameters: Mapping[int, Any]) -> None:
        """By slot: the sampling parameters of its request."""
        for slot, given in parameters.items():
            stops = [
                token for token in (given.eos_token_id, *(given.stop_token_ids or ())) if token is not None
            ]
            if (lacking := len(stops) - self._tokens.shape[1]) > 0:
                self._tokens = torch.nn.functional.pad(self._tokens, (0, lacking), value=-1)
            self._tokens[slot] = -1
            self._tokens[slot, : len(stops)] = torch.tensor(stops, dtype=torch.int64).to(self._tokens.device)

    def masked(self, placed: Placed, input_ids: Int[torch.Tensor, " token"]) -> Placed:
        """The rows whose own token ended their request are not eligible; a prompt may end in any token."""
        ended = (input_ids[placed.index][:, None] == self._tokens[placed.slot]).any(dim=1) & (placed.step > 0)
        step = torch.where(ended, -1, placed.step)
        return replace(placed, step=step)
