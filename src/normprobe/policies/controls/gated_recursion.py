"""Extra passes at other tokens than ALRR's: its baselines at equal compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.errors import NormprobeError
from normprobe.policies.draws import RequestKeys, uniform
from normprobe.policies.policy import Cost, Policy, RunningPolicy, check_within
from normprobe.policies.rows import Change, Rerun, RowInts, RowMask, Rows


@dataclass(frozen=True)
class RandomGate:
    """Tokens at random, keyed by (seed, request, layer, step). rate: by layer, the share of tokens; 1: all.

    Raises NormprobeError for a share outside [0, 1].
    """

    rate: Mapping[int, float]
    seed: int = 0

    def __post_init__(self) -> None:
        for layer, rate in self.rate.items():
            check_within(f"a share of tokens for layer {layer}", rate, 0, 1)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.rate))

    def open(self, rows: Rows, layer: int, key: RowInts) -> RowMask:
        return rows.eligible & (uniform(key, layer, rows.step, self.seed) < self.rate[layer])


@dataclass(frozen=True)
class EntropyGate:
    """Uncertain tokens: those drawn from a distribution of more than `above` nats.

    After Entropy-Gated Latent Recursion (arXiv 2606.16620). Raises NormprobeError for NaN.
    """

    layers: tuple[int, ...]
    above: float

    def __post_init__(self) -> None:
        if math.isnan(self.above):
            raise NormprobeError("expected an entropy in nats, got NaN; give a number")

    def open(self, rows: Rows, layer: int, key: RowInts) -> RowMask:
        """The rows above. Raises NormprobeError if the engine does not know the entropy."""
        if rows.entropy is None:
            raise NormprobeError(
                "expected an engine that knows the output entropy of each token, got one that does not; "
                "use the Hugging Face engine"
            )
        return rows.eligible & (rows.entropy > self.above)


Gate = RandomGate | EntropyGate


@dataclass(frozen=True)
class GatedRecursion(Policy):
    """Extra passes at the tokens that a gate chooses, all of them kept. max_passes, damping: as in `ALRR`."""

    gate: Gate
    max_passes: int = 1
    damping: float = 1.0

    kind: ClassVar[str] = "recursion"

    def __post_init__(self) -> None:
        check_within("max_passes", self.max_passes, 1)
        check_within("damping", self.damping, 0, 1)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.gate.layers

    @property
    def reads_entropy(self) -> bool:
        return isinstance(self.gate, EntropyGate)

    def cost(self, state_bytes: int) -> Cost:
        return Cost(RequestKeys.BYTES, self.max_passes * len(self.layers))

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningGatedRecursion(self, RequestKeys(n_slots, device))


@dataclass(frozen=True)
class _RunningGatedRecursion(RunningPolicy):
    settings: GatedRecursion
    keys: RequestKeys

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.keys.reset(slots, requests)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        active = self.settings.gate.open(rows, layer, self.keys.of(rows.slot))
        hidden, passes = rows.hidden, torch.zeros_like(rows.slot)
        for _ in range(self.settings.max_passes):
            out = rerun(active, hidden)
            if out is None:
                break
            passes = passes + active
            mixed = torch.lerp(hidden, out, self.settings.damping)
            hidden = torch.where(active[:, None], mixed, hidden)
        return Change(hidden, active, passes)
