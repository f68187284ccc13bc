"""Which tokens get an extra pass in the baselines of ALRR: as many as with its window of norms, but other ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool

from normprobe.errors import NormprobeError
from normprobe.policies.alrr import check_passes
from normprobe.policies.draws import keys, uniform
from normprobe.policies.rows import Change, Rerun, Rows, RunningPolicy, request_key


@dataclass(frozen=True)
class RandomGate:
    """Tokens at random, keyed by (seed, request, layer, step). rate: by layer, the share of tokens."""

    rate: Mapping[int, float]
    seed: int = 0

    def __post_init__(self) -> None:
        if bad := {layer: rate for layer, rate in self.rate.items() if not 0 <= rate <= 1}:
            raise NormprobeError(
                f"expected a share of tokens in [0, 1] for each layer, got {bad}; correct it"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.rate))

    def start(self, n_slots: int, device: torch.device) -> RandomGateState:
        return RandomGateState(self, torch.zeros(n_slots + 1, dtype=torch.int64, device=device))


@dataclass(frozen=True)
class RandomGateState:
    """The keys of the requests at hand."""

    settings: RandomGate
    key: torch.Tensor

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        at = torch.tensor(list(slots), dtype=torch.int64, device=self.key.device)
        self.key[at] = keys([request_key(request) for request in requests], self.key.device)

    def open(self, rows: Rows, layer: int) -> Bool[torch.Tensor, " row"]:
        """The rows drawn."""
        drawn = uniform(self.key[rows.slot], layer, rows.step, self.settings.seed)
        return rows.eligible & (drawn < self.settings.rate[layer])


@dataclass(frozen=True)
class EntropyGate:
    """Uncertain tokens: those drawn from a distribution of more than `above` nats.

    After Entropy-Gated Latent Recursion (arXiv 2606.16620).
    """

    layers: tuple[int, ...]
    above: float

    def __post_init__(self) -> None:
        if math.isnan(self.above):
            raise NormprobeError("expected an entropy in nats, got NaN; give a number")

    def start(self, n_slots: int, device: torch.device) -> EntropyGate:
        return self

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None: ...

    def open(self, rows: Rows, layer: int) -> Bool[torch.Tensor, " row"]:
        """The rows above. Raises NormprobeError if the engine does not tell the entropy."""
        if rows.entropy is None:
            raise NormprobeError(
                "expected an engine that tells the output entropy of each token, got one that does not; "
                "use the Hugging Face engine"
            )
        return rows.eligible & (rows.entropy > self.above)


@dataclass(frozen=True)
class AlwaysGate:
    """All tokens."""

    layers: tuple[int, ...]

    def start(self, n_slots: int, device: torch.device) -> AlwaysGate:
        return self

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None: ...

    def open(self, rows: Rows, layer: int) -> Bool[torch.Tensor, " row"]:
        """All of them."""
        return rows.eligible


Gate = RandomGate | EntropyGate | AlwaysGate


@dataclass(frozen=True)
class GatedRecursion:
    """A baseline of ALRR at equal compute: as many extra passes at tokens that a `gate` chooses, all of them kept.

    max_passes, damping: as in `ALRR`.
    """

    gate: Gate
    max_passes: int = 1
    damping: float = 1.0

    kind: ClassVar[str] = "recursion"

    def __post_init__(self) -> None:
        check_passes(self.max_passes, self.damping)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.gate.layers

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningGatedRecursion(self, n_slots, device)


class _RunningGatedRecursion:
    def __init__(self, settings: GatedRecursion, n_slots: int, device: torch.device) -> None:
        self.settings = settings
        self.gate = settings.gate.start(n_slots, device)

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.gate.reset(slots, requests)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """Extra passes for the rows that the gate lets through."""
        active = self.gate.open(rows, layer)
        hidden, passes = rows.hidden, torch.zeros_like(rows.slot)
        for _ in range(self.settings.max_passes):
            out = rerun(active, hidden)
            if out is None:
                break
            passes = passes + active
            mixed = torch.lerp(hidden, out, self.settings.damping)
            hidden = torch.where(active[:, None], mixed, hidden)
        return Change(hidden, active, passes)

    def finish(self) -> None: ...
