"""The arms of the evaluation: the paper's methods, and what each has to beat at equal compute (arXiv 2606.06188).

A baseline does what its method does, with the norm taken out of the decision: extra passes for random tokens, for
uncertain tokens, for all; injections of a random earlier state, of length alone, of a random direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from normprobe.layer_profile import LayerProfile
from normprobe.policies.gates import AlwaysGate, EntropyGate, RandomGate
from normprobe.policies.recursion import GatedRecursion, Recursion
from normprobe.policies.rows import Change, Policy, Rerun, Rows, Stateless
from normprobe.policies.steering import Steering
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import AdaptiveThreshold

Method = Literal["ALRR", "ERSS"]
WARMER = "plain, T = 0.6"
"""Plain generation with nothing changed but sampling."""
IQR_FACTORS = (0.0, 1.5)
"""k in τ = Q3 + k·IQR: how rare a peak is. At 0 a quarter of all tokens are peaks."""


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: a method, the layers and the k of its threshold, and what else differs from the paper."""

    method: Method
    layers: tuple[int, ...]
    iqr_factor: float = 1.5
    other: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        rest = "".join(f", {key} {value}" for key, value in self.other)
        return f"{self.method}: layers {_span(self.layers)}, k {self.iqr_factor:g}{rest}"

    def policy(self, profile: LayerProfile) -> Recursion | Steering:
        """The method with these settings."""
        threshold = AdaptiveThreshold.of(profile, self.layers, k=self.iqr_factor)
        make = Recursion if self.method == "ALRR" else Steering
        return make(threshold=threshold, **dict(self.other))


def papers(profile: LayerProfile) -> list[Setting]:
    """The paper's settings: of ALRR, and of ERSS as the paper's text and as its code have it."""
    layers = tuple(profile.chosen_layers)
    return [
        Setting("ALRR", layers),
        Setting("ERSS", layers, other=(("trigger", "at_peaks"),)),
        Setting("ERSS", layers, other=(("trigger", "low_streak"),)),
    ]


def sweep(profile: LayerProfile) -> list[Setting]:
    """The paper's settings and those around them: τ, layers, passes and growth, β and trigger."""
    depth = len(profile.tau)
    spans = {
        "late": tuple(profile.chosen_layers),
        "middle": tuple(range(depth // 4, depth - depth // 4)),
    }
    found = papers(profile)
    for layers, k in product(spans.values(), IQR_FACTORS):
        found += [
            Setting("ALRR", layers, k, (("blow_up", 7.0), ("growth", 0.01))),
            Setting("ALRR", layers, k, (("blow_up", 7.0), ("growth", 0.01), ("damping", 0.25))),
            Setting(
                "ERSS",
                layers,
                k,
                (("trigger", "at_peaks"), ("beta", 0.1), ("probability", 1.0), ("cooldown", 0)),
            ),
        ]
    late = spans["late"]
    found += [
        Setting("ALRR", late, 0.0, (("blow_up", 7.0), ("growth", 0.01), ("max_passes", passes)))
        for passes in (2, 8)
    ]
    found += [Setting("ERSS", late, 0.0, (("trigger", "at_peaks"), ("beta", beta))) for beta in (0.25, 0.5)]
    found.append(Setting("ERSS", late, 0.0, (("trigger", "low_streak"), ("streak", 8), ("cooldown", 8))))
    return list(dict.fromkeys(found))


def plain(profile: LayerProfile) -> Policy:
    """A policy that never acts: the same path through the engine, the model's own answers."""
    return Suppression.above(dict.fromkeys(profile.chosen_layers, float("inf")))


def baselines(
    setting: Setting,
    profile: LayerProfile,
    rate: Mapping[int, float],
    uncertain: float,
    seed: int,
) -> dict[str, Policy]:
    """What a method has to beat, by name.

    rate: layer → share of the tokens that the method acts on; uncertain: the output entropy, nats, above which as large
    a share lies.
    """
    policy = setting.policy(profile)
    if isinstance(policy, Recursion):
        gates = {
            "random gate": RandomGate(dict(rate), seed),
            "entropy gate": EntropyGate(setting.layers, uncertain),
            "always on": AlwaysGate(setting.layers),
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


def _span(layers: tuple[int, ...]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}–{layers[-1]}"
