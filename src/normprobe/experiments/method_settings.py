"""The settings that the evaluation tries: the paper's, and those around them (arXiv 2606.06188)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import torch
from jaxtyping import Float

from normprobe.layer_profile import LayerProfile
from normprobe.policies.alrr import ALRR
from normprobe.policies.controls.caa import CAA
from normprobe.policies.erss import ERSS
from normprobe.policies.threshold import AdaptiveThreshold

Method = Literal["ALRR", "ERSS", "CAA"]
"""CAA (contrastive activation addition) is ERSS's baseline: it has a size of its own to tune, so it is swept too."""
Vectors = Callable[[tuple[int, ...]], Mapping[int, Float[torch.Tensor, " d"]]]
"""CAA's vectors of these layers."""

IQR_FACTORS = (0.0, 1.5)
"""k in τ = Q3 + k·IQR: how rare a peak is. At 0 a quarter of all tokens are peaks."""
FIXED = 1e9
"""Pseudo-tokens of a prior that no request ever moves: τ stays the profile's."""
DEMO = (("blow_up", 7.0), ("growth", 0.01))
"""The window and growth rule of the demonstration in the paper's code: most tried passes are kept."""
EAGER = (("trigger", "at_peaks"), ("probability", 1.0), ("cooldown", 0))
"""Every peak that finds a match is steered."""


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: a method, its layers, the k of its threshold, and what else differs from the paper."""

    method: Method
    layers: tuple[int, ...]
    iqr_factor: float = 1.5
    other: tuple[tuple[str, Any], ...] = ()
    fixed: bool = False

    @property
    def name(self) -> str:
        k = "" if self.method == "CAA" else f", {'fixed τ, ' if self.fixed else ''}k {self.iqr_factor:g}"
        rest = "".join(f", {key} {value}" for key, value in self.other)
        span = "–".join(str(layer) for layer in dict.fromkeys((self.layers[0], self.layers[-1])))
        return f"{self.method}: layers {span}{k}{rest}"

    def policy(self, profile: LayerProfile, vectors: Vectors) -> ALRR | ERSS | CAA:
        """The method with these settings."""
        other = dict(self.other)
        if self.method == "CAA":
            return CAA(vectors(self.layers), **other)
        prior = {"prior_tokens": FIXED} if self.fixed else {}
        threshold = AdaptiveThreshold.of(profile, self.layers, k=self.iqr_factor, **prior)
        return (ALRR if self.method == "ALRR" else ERSS)(threshold=threshold, **other)

    def to_json(self) -> str:
        """One line; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Setting:
        """What `to_json` wrote."""
        read = json.loads(text)
        other = tuple((key, value) for key, value in read.pop("other"))
        return cls(layers=tuple(read.pop("layers")), other=other, **read)


def papers(profile: LayerProfile) -> list[Setting]:
    """The paper's settings: of ALRR, and of ERSS as the paper's text and as its code have it."""
    layers = tuple(profile.chosen_layers)
    return [
        Setting("ALRR", layers),
        Setting("ERSS", layers, other=(("trigger", "at_peaks"),)),
        Setting("ERSS", layers, other=(("trigger", "low_streak"),)),
    ]


def sweep(profile: LayerProfile) -> list[Setting]:
    """The paper's settings and those around them: τ, layers, passes and growth, β and trigger; CAA's β."""
    depth = len(profile.tau)
    late = tuple(profile.chosen_layers)
    middle = tuple(range(depth // 4, depth - depth // 4))
    found = papers(profile)
    for layers, k in product((late, middle), IQR_FACTORS):
        found += [
            Setting("ALRR", layers, k, DEMO),
            Setting("ALRR", layers, k, (*DEMO, ("damping", 0.25))),
            Setting("ERSS", layers, k, (*EAGER, ("beta", 0.1))),
        ]
    found += [Setting("ALRR", late, 0.0, (*DEMO, ("max_passes", passes))) for passes in (2, 8)]
    found += [Setting("ALRR", late, k, DEMO, fixed=True) for k in IQR_FACTORS]
    found += [Setting("ERSS", late, 0.0, (("trigger", "at_peaks"), ("beta", beta))) for beta in (0.25, 0.5)]
    found.append(Setting("ERSS", late, 0.0, (("trigger", "low_streak"), ("streak", 8), ("cooldown", 8))))
    found += [Setting("CAA", late, other=(("beta", beta),)) for beta in (0.1, 0.25, 0.5, 1.0)]
    return list(dict.fromkeys(found))


def sensitivity(profile: LayerProfile) -> dict[Setting, tuple[str, float]]:
    """The settings that vary one knob, each with (knob, value). All act often: `DEMO`, `EAGER`, k = 0."""
    late = tuple(profile.chosen_layers)
    found: dict[Setting, tuple[str, float]] = {}
    for k in (0.0, 0.5, 1.0, 1.5, 3.0):
        found[Setting("ALRR", late, k, DEMO)] = ("ALRR: k of an adaptive τ", k)
        found[Setting("ALRR", late, k, DEMO, fixed=True)] = ("ALRR: k of a fixed τ", k)
    for passes in (2, 4, 8):
        found[Setting("ALRR", late, 0.0, (*DEMO, ("max_passes", passes)))] = ("ALRR: extra passes", passes)
    for beta in (0.1, 0.25, 0.5, 1.0):
        found[Setting("ERSS", late, 0.0, (*EAGER, ("beta", beta)))] = ("ERSS: β", beta)
    return found
