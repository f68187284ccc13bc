"""The engine's lasting policies inside a CUDA graph of a whole decode step.

Python code runs while such a graph is captured and never again; a replay does the same tensor work on the same memory.
So whatever differs from step to step is read from buffers at fixed places: the runner's own (tokens and positions), and
the slot of each row under each policy, which changes only when the batch does. From these the graph itself finds the
step of each row. Every policy computes all rows of the graph; those of padding and of requests with another policy have
slot −1 for it. Histories advance inside the graph as well. In a graph each request has one token, so that its row is
its place in the batch.
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
    """Policies at work in graphs of whole decode steps.

    running: the policies by the text that describes them. layers: those of each that are on this worker, one at least.
    state: one of the model's, for its width and dtype. tokens, positions: the runner's buffers, by row. ends: where a
    row may belong to a request that has ended.
    """

    def __init__(
        self,
        running: Mapping[str, RunningPolicy],
        layers: Mapping[str, Collection[int]],
        n_slots: int,
        state: Float[torch.Tensor, "1 d"],
        tokens: Int[torch.Tensor, " row"],
        positions: Int[torch.Tensor, " row"],
        ends: EndTokens | None = None,
    ) -> None:
        self._running, self._ends = running, ends
        self._tokens, self._positions = tokens, positions
        self._by_layer = {
            layer: [text for text in running if layer in layers[text]]
            for layer in sorted({layer for text in running for layer in layers[text]})
        }
        self._index = torch.arange(n_slots, device=positions.device)
        # By row: the position of the last prompt token, whose step is 0, and the slot under each policy.
        self._placed = torch.full((1 + len(running), n_slots), -1, device=positions.device)
        self._batch: list[tuple[int, ...]] = []
        self._at: dict[str, tuple[RowInts, RowInts]] = {}
        # What a policy makes in its first pass would be made anew in every replay: here is a pass of padding.
        padding = Rows(state, self._placed[0, :1], self._placed[0, :1])
        for text, policy in running.items():
            for layer in sorted(layers[text]):
                policy.apply(padding, layer, lambda active, states: states)
            policy.finish()

    def place(self, layout: PassLayout, active: Mapping[str, ActiveRequest]) -> None:
        """A step begins. Requests of its batch that are not `active` get no policy."""
        batch: list[tuple[int, ...]] = []
        for request, n_prompt in zip(layout.requests, layout.prompt.tolist(), strict=True):
            one = active.get(request)
            slots = [-1 if one is None or one.policy != text else one.slot for text in self._running]
            batch.append((n_prompt - 1, *slots))
        if batch != self._batch:
            n_policies, n_rows = len(self._running), self._placed.shape[1]
            padding = [(-1,) * (1 + n_policies)] * (n_rows - len(batch))
            self._placed.copy_(
                torch.from_numpy(np.ascontiguousarray(np.array([*batch, *padding]).T)), non_blocking=True
            )
            self._batch = batch

    def apply(self, site: SiteInPlace, layer: int, again: Float[torch.Tensor, "row d"] | None) -> None:
        """Apply the policies to all rows of a layer's output. again: the output after one more pass of the layer.

        Passes over more tokens than a step can have are none of requests: the engine tries out its memory.
        """
        n = len(site.halves[0])
        if n > len(self._index) or layer not in self._by_layer:
            return
        first, last = min(self._by_layer), max(self._by_layer)
        if layer == first:
            origin, *slots = self._placed[:, :n]
            self._at = {
                text: (slot, self._steps(slot, origin))
                for text, slot in zip(self._running, slots, strict=True)
            }
        index = self._index[:n]
        for text in self._by_layer[layer]:
            # `again` holds for each of them: what one changes are the rows of its own requests.
            rows = Rows(site.at(index), *self._at[text])
            change = self._running[text].apply(rows, layer, lambda active, states: again)
            if change.hidden is not rows.hidden:
                site.changed(index, change)
        if layer == last:
            for running in self._running.values():
                running.finish()

    def _steps(self, slot: RowInts, origin: RowInts) -> RowInts:
        """The step of each of the first rows."""
        n = len(slot)
        step = torch.where(slot >= 0, self._positions[:n] - origin, -1)
        return step if self._ends is None else self._ends.steps(slot, step, self._tokens[:n])
