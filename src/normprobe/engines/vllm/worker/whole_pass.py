"""The engine's default policy inside a CUDA graph of a whole decode step.

Python code runs while such a graph is captured and never again; a replay does the same tensor work on the same memory.
So whatever differs from step to step is read from buffers at fixed places: the runner's own (tokens and positions), and
the slot of each row, which changes only when the batch does. From these the graph itself finds the step of each row.
All rows of the graph are computed, padding included (slot −1), and the history advances inside the graph as well. In a
graph each request has one token, so that its row is its place in the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int

from normprobe.engines.vllm.worker.eligible_rows import EndTokens, PassLayout
from normprobe.engines.vllm.worker.residual_stream import SiteInPlace
from normprobe.engines.vllm.worker.slots import ActiveRequest
from normprobe.policies.policy import Policy, RunningPolicy
from normprobe.policies.rows import RowInts, Rows


def fits_a_graph(policy: Policy) -> bool:
    """Whether a policy can be part of a graph.

    It reads no entropies, which are known outside of the graph only. It runs a layer once more at most, and on what the
    layer gave: the graph holds that one pass, whatever another part of the policy has made of the state before.
    """
    changed: set[int] = set()
    for part in policy.parts:
        passes = part.cost(0).extra_passes
        if passes > len(part.layers) or (passes and changed & set(part.layers)):
            return False
        if part.kind != "probe":
            changed |= set(part.layers)
    return not policy.reads_entropy


class WholePass:
    """A policy at work in graphs of whole decode steps.

    layers: those of the policy that are on this worker. state: one of the model's, for its width and dtype. tokens,
    positions: the runner's buffers, by row. ends: where a row may belong to a request that has ended.
    """

    def __init__(
        self,
        running: RunningPolicy,
        layers: Collection[int],
        n_slots: int,
        state: Float[torch.Tensor, "1 d"],
        tokens: Int[torch.Tensor, " row"],
        positions: Int[torch.Tensor, " row"],
        ends: EndTokens | None = None,
    ) -> None:
        self._running, self._layers, self._ends = running, sorted(layers), ends
        self._tokens, self._positions = tokens, positions
        self._index = torch.arange(n_slots, device=positions.device)
        # By row: the slot, and the position of the last prompt token, whose step is 0.
        self._slot, self._origin = self._placed = torch.full((2, n_slots), -1, device=positions.device)
        self._batch: list[tuple[int, int]] = []
        self._at: tuple[RowInts, RowInts] | None = None
        # What a policy makes in its first pass would be made anew in every replay: here is a pass of padding.
        padding = Rows(state, self._slot[:1], self._slot[:1])
        for layer in self._layers:
            running.apply(padding, layer, lambda active, states: states)
        running.finish()

    def place(self, layout: PassLayout, active: Mapping[str, ActiveRequest]) -> None:
        """A step begins. Requests of its batch that are not `active` get no policy."""
        slots = [active[request].slot if request in active else -1 for request in layout.requests]
        batch = list(zip(slots, layout.prompt.tolist(), strict=True))
        if batch != self._batch:
            padding = [(-1, 0)] * (self._placed.shape[1] - len(batch))
            slot, n_prompt = np.array([*batch, *padding]).T
            self._placed.copy_(torch.from_numpy(np.stack([slot, n_prompt - 1])), non_blocking=True)
            self._batch = batch

    def apply(self, site: SiteInPlace, layer: int, again: Float[torch.Tensor, "row d"] | None) -> None:
        """Apply the policy to all rows of a layer's output. again: the output after one more pass of the layer.

        Passes over more tokens than a step can have are none of requests: the engine tries out its memory.
        """
        n = len(site.halves[0])
        if n > len(self._slot) or layer not in self._layers:
            return
        if layer == self._layers[0]:
            self._at = self._rows(n)
        assert self._at is not None
        index = self._index[:n]
        rows = Rows(site.at(index), *self._at)
        change = self._running.apply(rows, layer, lambda active, states: again)
        if change.hidden is not rows.hidden:
            site.changed(index, change)
        if layer == self._layers[-1]:
            self._running.finish()

    def _rows(self, n: int) -> tuple[RowInts, RowInts]:
        """Slot and step of the first n rows."""
        slot = self._slot[:n]
        step = torch.where(slot >= 0, self._positions[:n] - self._origin[:n], -1)
        if self._ends is None:
            return slot, step
        return slot, self._ends.steps(slot, step, self._tokens[:n])
