"""Damped loops over a block of layers: ALRR's rival from training-free looped transformers (arXiv 2605.23872).

The block g = layer b ∘ … ∘ layer a is read as one Euler step from its input x₀ to g(x₀), and is taken in K smaller
ones, x_{k+1} = x_k + (g(x_k) − x_k) / K: more passes over the same way, where naive repetition goes further than the
later layers have been trained to read. A token's keys and values stay those of its first pass.

The paper's text was not at hand. Taken from public readings and a reproduction of it
(singularity119/Training-Free-Looped-Transformers-Reproduction): the formula; a block of four layers in the middle;
block by block rather than layer by layer for dense models; K = 3, the cache of the first pass and every decoded token,
its setting for a benchmark with chains of thought. Ours: within a further pass a token reads its own keys and values of
the first pass too (theirs are computed anew and then dropped); and the gate, which the paper has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.controls.gated_recursion import EntropyGate, Gate, RandomGate
from normprobe.policies.draws import RequestKeys
from normprobe.policies.policy import Cost, Policy, RunningPolicy, check_within
from normprobe.policies.rows import Change, Rerun, RowMask, Rows, RowStates

WIDTH = 4
"""Layers of the block."""


@dataclass(frozen=True)
class DampedLoop(Policy):
    """The layers `first` … `last` in `steps` damped steps, at the tokens that a gate of layer `last` chooses.

    The layer before `first` is only read. Raises NormprobeError for a block without a layer before it, or one step.
    """

    gate: Gate
    first: int
    steps: int = 3

    kind: ClassVar[str] = "recursion"

    def __post_init__(self) -> None:
        check_within("steps", self.steps, 2, hint="one step is the plain model")
        if not 1 <= self.first <= self.last or len(self.gate.layers) != 1:
            raise NormprobeError(
                f"expected a block from layer 1 on and a gate at its last layer, got layer {self.first} and a gate at "
                f"{list(self.gate.layers)}; the layer before the block gives its input"
            )

    @property
    def last(self) -> int:
        return self.gate.layers[-1]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(range(self.first - 1, self.last + 1))

    @property
    def acts_at(self) -> tuple[int, ...]:
        return (self.last,)

    @property
    def reads_entropy(self) -> bool:
        return isinstance(self.gate, EntropyGate)

    @classmethod
    def of(cls, n_layers: int, passes: float, seed: int) -> DampedLoop:
        """The middle block of a model, at random tokens: as many as give `passes` extra layer passes per token, all if
        there are not so many."""
        width = max(1, min(WIDTH, n_layers - 2))
        first = max(1, (n_layers - width) // 2)
        full = (cls.steps - 1) * width
        return cls(RandomGate({first + width - 1: min(1.0, passes / full)}, seed), first)

    def cost(self, state_bytes: int) -> Cost:
        return Cost(RequestKeys.BYTES, (self.steps - 1) * (self.last - self.first + 1))

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningDampedLoop(self, RequestKeys(n_slots, device))


class _RunningDampedLoop(RunningPolicy):
    def __init__(self, settings: DampedLoop, keys: RequestKeys) -> None:
        self.settings, self.keys = settings, keys
        self._entry: RowStates | None = None
        self._block: list[Rerun] = []

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.keys.reset(slots, requests)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        s = self.settings
        nothing = torch.zeros_like(rows.eligible)
        if layer < s.first:
            self._entry, self._block = rows.hidden, []
            return Change(rows.hidden, nothing)
        self._block.append(rerun)
        if layer < s.last:
            return Change(rows.hidden, nothing)
        active = s.gate.open(rows, layer, self.keys.of(rows.slot))
        assert self._entry is not None
        state, out = self._entry, rows.hidden  # g(x₀) is known: the pass that every token makes
        for step in range(s.steps):
            if step:
                again = self._once_more(active, state)
                if again is None:
                    return Change(rows.hidden, active)
                out = again
            state = torch.lerp(state, out, 1 / s.steps)
        passes = s.cost(0).extra_passes * active.to(rows.slot.dtype)
        return Change(torch.where(active[:, None], state, rows.hidden), active, passes)

    def _once_more(self, active: RowMask, state: RowStates) -> RowStates | None:
        """The whole block on other states than it was given."""
        out: RowStates | None = state
        for rerun in self._block:
            out = rerun(active, out)
            if out is None:
                return None
        return out

    def finish(self) -> None:
        self._entry, self._block = None, []
