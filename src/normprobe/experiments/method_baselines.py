"""What each method has to beat at equal compute (arXiv 2606.06188): its own doing, with the norm taken out.

Extra passes for random tokens, for uncertain tokens, for all; injections of a random earlier state, of length alone, of
a random direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from normprobe.layer_profile import LayerProfile
from normprobe.policies.gates import AlwaysGate, EntropyGate, RandomGate
from normprobe.policies.recursion import GatedRecursion, Recursion
from normprobe.policies.rows import Change, Policy, Rerun, Rows, Stateless
from normprobe.policies.steering import Steering
from normprobe.policies.suppression import Suppression

WARMER = "plain, T = 0.6"
"""Plain generation with nothing changed but sampling."""


def plain(profile: LayerProfile) -> Policy:
    """A policy that never acts: the same path through the engine, the model's own answers."""
    return Suppression.above(dict.fromkeys(profile.chosen_layers, float("inf")))


def baselines(
    policy: Recursion | Steering, rate: Mapping[int, float], uncertain: float, seed: int
) -> dict[str, Policy]:
    """What a method has to beat, by name.

    rate: layer → share of the tokens that the method acts on; uncertain: the output entropy, nats, above which as large
    a share lies.
    """
    if isinstance(policy, Recursion):
        gates = {
            "random gate": RandomGate(dict(rate), seed),
            "entropy gate": EntropyGate(policy.layers, uncertain),
            "always on": AlwaysGate(policy.layers),
        }
        return {
            f"ALRR: {name}": GatedRecursion(gate, policy.max_passes, policy.damping)
            for name, gate in gates.items()
        }
    return {
        "ERSS: random bank vector": replace(policy, direction="random_bank"),
        "ERSS: length alone": replace(policy, direction="scaled"),
        "ERSS: rotation": replace(policy, direction="rotated"),
    }


@dataclass
class Entropies(Stateless):
    """Changes nothing; collects the output entropy that each generated token was drawn with, for a baseline's gate."""

    layer: int

    kind: ClassVar[str] = "probe"

    def __post_init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        assert rows.entropy is not None
        self.seen.append(torch.where(rows.eligible, rows.entropy, torch.nan))
        return Change(rows.hidden, torch.zeros_like(rows.eligible))

    def above(self, share: float) -> float:
        """The entropy above which this share of the tokens lies."""
        values = torch.cat(self.seen).cpu().numpy()
        return float(np.nanquantile(values, 1 - share))
