"""What a policy is to an engine and to an experiment: settings, what they cost, what they have to beat."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.rows import Change, ProbeSummary, Rerun, Rows

Counts = Mapping[str, Literal["tokens", "states"]]
"""The settings that count tokens of a response, or stored states: engines that requests share limit each."""


@dataclass(frozen=True)
class Cost:
    """What a policy asks of an engine at most.

    bytes_per_slot: the memory of one request's history, over all layers.
    extra_passes: extra layer passes of one token, over all layers.
    """

    bytes_per_slot: int = 0
    extra_passes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes_per_slot + other.bytes_per_slot, self.extra_passes + other.extra_passes)


class Policy(ABC):
    """An intervention: immutable settings, as a frozen dataclass.

    What a row gets may depend on the history of its own request, never on the other requests in the batch.
    """

    kind: ClassVar[str]
    """recursion, steering, suppression or probe: `Combined` finds conflicts by it."""
    counts: ClassVar[Counts] = {}

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """The layers (from 0) after which an engine calls the policy."""

    @property
    def acts_at(self) -> tuple[int, ...]:
        """The layers of `layers` at which it may change a state: all, unless it only reads some."""
        return self.layers

    @property
    def parts(self) -> tuple[Policy, ...]:
        """The policies it consists of: itself, unless it combines several."""
        return (self,)

    @property
    def reads_entropy(self) -> bool:
        """Whether it needs the output entropy of each token (`Rows.entropy`)."""
        return False

    def cost(self, state_bytes: int) -> Cost:
        """What it asks of an engine in which one state takes `state_bytes` (width × bytes per number)."""
        return Cost()

    def baselines(
        self,
        rate: Mapping[int, float],
        seed: int,
        entropy_above: Callable[[float], float] | None,
        n_layers: int,
    ) -> dict[str, Policy]:
        """What it has to beat at equal compute, by name; nothing unless a policy says so.

        rate: layer → share of the tokens that the policy acted on. seed: of random draws. entropy_above: the output
        entropy in nats above which a share of the tokens lies; None where the engine does not know entropies.
        n_layers: of the model.
        """
        return {}

    @abstractmethod
    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        """The policy at work, with room for the histories of `n_slots` requests at a time, of width d."""


class RunningPolicy(ABC):
    """A policy at work. All tensor maths: nothing here waits for the device, but for what `rerun` itself reads."""

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:  # noqa: B027  without a history
        """From now on these slots hold these requests, which start anew. Must precede their first row.

        A request's name keys its random draws and nothing else.
        """

    @abstractmethod
    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """Change the states of one layer in one pass, layers in ascending order. History does not change yet."""

    def finish(self) -> None:  # noqa: B027  without a history
        """The pass is over: what all layers have shown since the last call enters the history at once."""

    def summary(self, slots: Sequence[int]) -> ProbeSummary | None:
        """What it recorded of these requests; None for a policy that records nothing."""
        return None


class Stateless(Policy, RunningPolicy):
    """A policy without a history: its settings run as they are."""

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return self


def check_within(
    name: str, value: int | float, low: int | float, high: int | float = math.inf, hint: str = "correct it"
) -> None:
    """Raises NormprobeError unless low ≤ value ≤ high; NaN is outside. hint: what to do."""
    if not low <= value <= high:
        interval = f"≥ {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise NormprobeError(f"expected {name} {interval}, got {value}; {hint}")
