"""Rotation: disturb the states that a suppression would shorten as much as it would, but leave their norm alone.

A control of the causal experiment (arXiv 2606.06188) that the paper does not have: if it hurts as much, the harm is
that of any disturbance at these tokens, not of a lost norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from normprobe.policies.rows import Rows, norms, request_key
from normprobe.policies.suppression import Suppression


@dataclass(frozen=True)
class Rotation:
    """Turn the states that `suppression` chooses in a random direction, until ‖Δh‖ is what it would have taken off.

    ‖Δh‖ = (1 − scale)·‖h‖ at a fixed norm is a turn by 2·asin((1 − scale)/2), 53° at the paper's 0.1. The direction is
    uniform among those orthogonal to h, keyed by (seed, the request's name, layer, step).

    requests: the name of each slot.
    """

    suppression: Suppression
    requests: Sequence[str]
    seed: int

    @property
    def layers(self) -> tuple[int, ...]:
        return self.suppression.layers

    def apply(
        self, rows: Rows, layer: int
    ) -> tuple[Float[torch.Tensor, "row d"], Bool[torch.Tensor, " row"]]:
        """The rows with the chosen ones turned, and which those are."""
        chosen = self.suppression.chosen(rows, layer)
        # Draws are made on the host and only for the chosen rows: they are few, and a prompt's rows are many.
        at = chosen.nonzero()[:, 0]
        state = rows.hidden[at].float()
        length = norms(state)[:, None]
        along = _unit(state)
        drawn = self._drawn(rows.slot[at].cpu(), rows.step[at].cpu(), layer, state.shape[1]).to(state.device)
        across = _unit(drawn - (drawn * along).sum(dim=-1, keepdim=True) * along)
        angle = 2 * math.asin((1 - self.suppression.scale) / 2)
        turned = length * (math.cos(angle) * along + math.sin(angle) * across)
        return rows.hidden.index_copy(0, at, turned.to(rows.hidden.dtype)), chosen

    def _drawn(
        self, slot: Int[torch.Tensor, " row"], step: Int[torch.Tensor, " row"], layer: int, d: int
    ) -> Float[torch.Tensor, "row d"]:
        """Normal draws, which have no preferred direction."""
        drawn = np.empty((len(slot), d), dtype=np.float32)
        for row in range(len(slot)):
            request = self.requests[int(slot[row])]
            key = [self.seed, request_key(request), layer, int(step[row])]
            drawn[row] = np.random.default_rng(key).standard_normal(d, dtype=np.float32)
        return torch.from_numpy(drawn)


def _unit(vectors: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row d"]:
    """Unit vectors; the smallest divisor only guards the zero vector, which stays zero."""
    return vectors / norms(vectors).clamp_min(1e-12)[:, None]
