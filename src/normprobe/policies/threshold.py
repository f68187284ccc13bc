"""The threshold τ of a layer: above it a token's norm is high. Fixed, or adapted to each request as it goes.

τ = Q3 + k·max(IQR, 0.001) (arXiv 2606.06188; k = 1.5). The reference code takes P² quantiles of batch means after 500
steps of warm-up, so what a request gets depends on its batch. Here each request has its own histogram per layer:

- bins of log-norm, so that one relative error holds at all sizes; integer counts: the order of tokens is irrelevant;
- a prior of pseudo-tokens distributed as the layer profile says; its weight fades as prior / (prior + n): no warm-up;
- a quartile is interpolated within its bin, so it is off by less than a bin's width w (3–4 % of the norm) whatever the
  stream, and τ by less than w · (Q3 + k·(Q1 + Q3)). Norms beyond the outermost edges count in the outermost bins.

P² (Jain & Chlamtac 1985) has no such bound: on 150 thoughts of the testbed's model (median 63 tokens) its τ was off by
5–11 % in the median and by 62 % at most, this one by 1 % and 6 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError
from normprobe.layer_profile import IQR_FACTOR, LayerProfile
from normprobe.policies.histograms import Histograms
from normprobe.policies.ops import peaks
from normprobe.policies.policy import Cost, Policy, RunningPolicy, check_within
from normprobe.policies.rows import RowFloats, RowInts, RowMask, Rows

BINS = 128
MARGIN = 4.0
"""The bins reach from a quarter of the profile's smallest norm to four times its largest."""
SMALLEST_PRIOR = 1e-6
"""Of less, float32 might keep nothing, and a request without tokens would have no quantile."""
LARGEST = 1e30
"""More than any norm needs; what comes of it fits into float32."""


@dataclass(frozen=True)
class FixedThreshold:
    """τ by layer, norms in activation units; the same for all requests. Raises NormprobeError unless τ > 0."""

    tau: Mapping[int, float]

    bytes_per_slot: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not self.tau:
            raise NormprobeError("expected τ for at least one layer, got none; name the layers")
        for layer, tau in self.tau.items():
            if not tau > 0:
                raise NormprobeError(
                    f"expected τ > 0 for layer {layer}, got {tau}; take it from a layer profile"
                )

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.tau.items())))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.tau))

    @classmethod
    def of(cls, profile: LayerProfile, layers: Sequence[int] | None = None) -> FixedThreshold:
        """The profile's own τ, of its chosen layers or of these."""
        return cls({layer: profile.tau[layer] for layer in _layers(profile, layers)})

    def start(self, n_slots: int, device: torch.device) -> FixedState:
        return FixedState({layer: torch.tensor(tau, device=device) for layer, tau in self.tau.items()})


@dataclass(frozen=True)
class FixedState:
    """A fixed threshold at work: it has nothing to remember."""

    _tau: Mapping[int, Float[torch.Tensor, ""]]

    def reset(self, slots: Sequence[int]) -> None: ...

    def tau(self, layer: int, slot: RowInts) -> RowFloats:
        return self._tau[layer].expand(len(slot))

    def observe(self, layer: int, *rows: torch.Tensor) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True)
class AdaptiveThreshold:
    """τ = Q3 + k·max(IQR, 0.001) of the request's own tokens so far and of a prior.

    low, high: by layer, the ends of the histogram, norms in activation units. prior: by layer, the share of
    pseudo-tokens in each bin. prior_tokens: how many there are.

    Raises NormprobeError for settings that make no sense.
    """

    layers: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    prior: tuple[tuple[float, ...], ...]
    k: float = IQR_FACTOR
    prior_tokens: float = 64.0

    def __post_init__(self) -> None:
        check_within("k", self.k, 0, LARGEST, f"the paper's τ = Q3 + k·IQR has {IQR_FACTOR}")
        check_within("prior_tokens", self.prior_tokens, SMALLEST_PRIOR, LARGEST, "64 is the default")
        ends = list(zip(self.low, self.high, strict=False))
        if not (
            0 < len(self.layers) == len(self.low) == len(self.high) == len(self.prior)
            and all(0 < low < high < math.inf for low, high in ends)
            and all(len(shares) == BINS and min(shares) >= 0 < sum(shares) for shares in self.prior)
        ):
            raise NormprobeError(
                f"expected 0 < low < high and {BINS} shares for each of the layers {self.layers}, got ends {ends} and "
                f"{[len(shares) for shares in self.prior]} shares; make the threshold from a layer profile"
            )

    @classmethod
    def of(
        cls,
        profile: LayerProfile,
        layers: Sequence[int] | None = None,
        *,
        k: float = IQR_FACTOR,
        prior_tokens: float = 64.0,
    ) -> AdaptiveThreshold:
        """Starts from the profile's quantiles in mode think, sinks included, of its chosen layers or of these.

        Raises NormprobeError for a layer that the profile lacks, or a profile without that mode.
        """
        if "think" not in profile.quantiles_with_sinks:
            raise NormprobeError(
                "expected a layer profile of mode think, got one without; make it again with normprobe verify"
            )
        chosen = _layers(profile, layers)
        low, high, prior = [], [], []
        for layer in chosen:
            # Float by name: whole numbers that a file may hold can be too large for NumPy's integers.
            quantiles = np.maximum(np.array(profile.quantiles_with_sinks["think"][layer], float), 1e-6)
            low.append(float(quantiles[0] / MARGIN))
            high.append(float(quantiles[-1] * MARGIN))
            edges = np.geomspace(low[-1], high[-1], BINS + 1)
            shares = np.diff(np.interp(edges, quantiles, profile.quantile_levels, left=0.0, right=1.0))
            prior.append(tuple((shares / shares.sum()).tolist()))
        return cls(chosen, tuple(low), tuple(high), tuple(prior), k, prior_tokens)

    @property
    def bytes_per_slot(self) -> int:
        """Memory per request: by layer the histogram's columns and τ, in float32."""
        return 4 * (BINS + 3) * len(self.layers)

    def start(self, n_slots: int, device: torch.device) -> Histograms:
        prior = np.pad(np.cumsum(self.prior, axis=1), ((0, 0), (1, 0))) * self.prior_tokens
        return Histograms(self.layers, np.log(self.low), np.log(self.high), prior, self.k, n_slots, device)


Threshold = FixedThreshold | AdaptiveThreshold


@dataclass(frozen=True)
class ThresholdPolicy(Policy):
    """A policy that acts where the norm is above a threshold. A spec can name it (`normprobe.policies.spec`): its
    settings are the threshold's and, with their defaults, its own fields."""

    threshold: Threshold

    name: ClassVar[str]

    @property
    def layers(self) -> tuple[int, ...]:
        return self.threshold.layers

    def cost(self, state_bytes: int) -> Cost:
        return Cost(self.threshold.bytes_per_slot)


class RunningThresholdPolicy(RunningPolicy):
    """A threshold policy at work: what its threshold remembers of each request."""

    def __init__(self, settings: ThresholdPolicy, n_slots: int, device: torch.device) -> None:
        self.threshold = settings.threshold.start(n_slots, device)

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.threshold.reset(slots)

    def peaks(
        self, rows: Rows, layer: int, blow_up: float | None = None
    ) -> tuple[RowFloats, RowFloats, RowMask]:
        """τ, then as `ops.peaks`: the norms and the rows above τ. The norms enter the threshold's history."""
        tau, eligible = self.threshold.tau(layer, rows.slot), rows.eligible
        norm, above = peaks(rows.hidden, tau, eligible, blow_up)
        self.threshold.observe(layer, rows.slot, norm, eligible)
        return tau, norm, above

    def finish(self) -> None:
        self.threshold.finish()


def _layers(profile: LayerProfile, layers: Sequence[int] | None) -> tuple[int, ...]:
    chosen = tuple(sorted(set(profile.chosen_layers if layers is None else layers)))
    if not chosen:
        raise NormprobeError("expected at least one layer, got none; name the layers")
    if absent := [layer for layer in chosen if not 0 <= layer < len(profile.tau)]:
        raise NormprobeError(
            f"expected layers 0…{len(profile.tau) - 1}, got {absent}; use layers that the profile has"
        )
    return chosen
