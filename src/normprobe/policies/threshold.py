"""The threshold τ of a layer: above it a token's norm is high. Fixed, or adapted to each request as it goes.

τ = Q3 + k·max(IQR, 0.001) (arXiv 2606.06188; k = 1.5). The reference code takes P² quantiles of batch means after 500
steps of warm-up, so what a request gets depends on its batch. Here each request has its own histogram per layer:

- bins of log-norm, so that one relative error holds at all sizes; integer counts, so that order has no say;
- a prior of pseudo-tokens distributed as the layer profile says, which fades as n / (n + prior): no warm-up;
- a quantile is interpolated within its bin, so it is off by less than a bin's width (3–4 % of the norm) whatever the
  stream. P² (Jain & Chlamtac 1985) has no such bound: on sorted or alternating streams its markers lag behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from normprobe.errors import NormprobeError
from normprobe.layer_profile import IQR_FACTOR, SMALLEST_IQR, LayerProfile

BINS = 128
MARGIN = 4.0
"""The bins reach from a quarter of the profile's smallest norm to four times its largest."""


@dataclass(frozen=True)
class FixedThreshold:
    """τ by layer, norms in activation units; the same for all requests. Raises NormprobeError unless τ > 0."""

    tau: Mapping[int, float]

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
    """Nothing to remember."""

    _tau: Mapping[int, Float[torch.Tensor, ""]]

    def reset(self, slots: Sequence[int]) -> None: ...

    def tau(self, layer: int, slot: Int[torch.Tensor, " row"]) -> Float[torch.Tensor, " row"]:
        """τ of each row."""
        return self._tau[layer].expand(len(slot))

    def see(
        self,
        layer: int,
        slot: Int[torch.Tensor, " row"],
        norm: Float[torch.Tensor, " row"],
        eligible: Bool[torch.Tensor, " row"],
    ) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True)
class AdaptiveThreshold:
    """τ = Q3 + k·max(IQR, 0.001) of the request's own tokens so far and of a prior.

    low, high: by layer, the ends of the histogram, norms in activation units. prior: by layer, the share of
    pseudo-tokens in each bin. prior_tokens: how many there are.
    """

    layers: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    prior: tuple[tuple[float, ...], ...]
    k: float = IQR_FACTOR
    prior_tokens: float = 64.0

    def __post_init__(self) -> None:
        if not self.k >= 0 or not math.isfinite(self.k):
            raise NormprobeError(
                f"expected k ≥ 0 in τ = Q3 + k·IQR, got {self.k}; the paper has {IQR_FACTOR}"
            )
        if not self.prior_tokens > 0 or not math.isfinite(self.prior_tokens):
            raise NormprobeError(f"expected prior_tokens > 0, got {self.prior_tokens}; 64 is the default")

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
            quantiles = np.maximum(profile.quantiles_with_sinks["think"][layer], 1e-6)
            low.append(float(quantiles[0] / MARGIN))
            high.append(float(quantiles[-1] * MARGIN))
            edges = np.geomspace(low[-1], high[-1], BINS + 1)
            shares = np.diff(np.interp(edges, quantiles, profile.quantile_levels, left=0.0, right=1.0))
            prior.append(tuple((shares / shares.sum()).tolist()))
        return cls(chosen, tuple(low), tuple(high), tuple(prior), k, prior_tokens)

    def start(self, n_slots: int, device: torch.device) -> AdaptiveState:
        return AdaptiveState(self, n_slots, device)


class AdaptiveState:
    """The histograms of the requests at hand: [layer, slot, bin] counts, 4 · 128 bytes per request and layer.

    One slot more than there are requests takes what is not to be counted.
    """

    def __init__(self, settings: AdaptiveThreshold, n_slots: int, device: torch.device) -> None:
        self.settings = settings
        self._index = {layer: i for i, layer in enumerate(settings.layers)}
        self._spare = n_slots
        low, high = (torch.tensor(ends, device=device).log() for ends in (settings.low, settings.high))
        self._low, self._width = low, (high - low) / BINS
        self._prior = torch.tensor(settings.prior, device=device) * settings.prior_tokens
        n_layers = len(settings.layers)
        self._counts = torch.zeros(n_layers, n_slots + 1, BINS, device=device)
        self._tau = torch.empty(n_layers, n_slots + 1, device=device)
        every = torch.arange(n_slots + 1, device=device).expand(n_layers, -1)
        self._refresh(torch.arange(n_layers, device=device), every)
        self._fresh = self._tau[:, 0].clone()
        self._seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def reset(self, slots: Sequence[int]) -> None:
        """Forget these requests: τ is the profile's again."""
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._tau.device)
        self._counts[:, at] = 0
        self._tau[:, at] = self._fresh[:, None]

    def tau(self, layer: int, slot: Int[torch.Tensor, " row"]) -> Float[torch.Tensor, " row"]:
        """τ of each row, from what its request has shown before this pass."""
        return self._tau[self._index[layer]][slot]  # −1, padding, is the spare slot

    def see(
        self,
        layer: int,
        slot: Int[torch.Tensor, " row"],
        norm: Float[torch.Tensor, " row"],
        eligible: Bool[torch.Tensor, " row"],
    ) -> None:
        """Remember the norms of a pass for `finish`. Rows that are not eligible and NaN norms do not count."""
        at = torch.where(eligible & ~norm.isnan(), slot, self._spare)
        self._seen.append((self._index[layer], at, norm))

    def finish(self) -> None:
        """What was seen since the last call enters the histograms, all layers at once."""
        if not self._seen:
            return
        layers, *columns = zip(*self._seen, strict=True)
        at, norm = map(torch.stack, columns)
        self._seen.clear()
        index = torch.tensor(layers, device=norm.device)
        place = (norm.clamp_min(1e-30).log() - self._low[index, None]) / self._width[index, None]
        place = place.nan_to_num(0.0).clamp(0, BINS - 1).long()
        flat = (index[:, None] * (self._spare + 1) + at) * BINS + place
        self._counts.view(-1).index_add_(0, flat.flatten(), torch.ones_like(norm).flatten())
        self._refresh(index, at)

    def _refresh(self, index: Int[torch.Tensor, " layer"], at: Int[torch.Tensor, "layer slot"]) -> None:
        """τ of these layers and slots anew."""
        counts = self._counts[index[:, None], at] + self._prior[index, None]
        cumulated = counts.cumsum(dim=-1)
        lower, upper = (self._quantile(index, counts, cumulated, level) for level in (0.25, 0.75))
        fence = upper + self.settings.k * (upper - lower).clamp_min(SMALLEST_IQR)
        self._tau[index[:, None], at] = fence

    def _quantile(
        self,
        index: Int[torch.Tensor, " layer"],
        counts: Float[torch.Tensor, "layer slot bin"],
        cumulated: Float[torch.Tensor, "layer slot bin"],
        level: float,
    ) -> Float[torch.Tensor, "layer slot"]:
        """The norm below which this share lies; linear in log-norm within a bin."""
        target = level * cumulated[..., -1:]
        place = (cumulated < target).sum(dim=-1, keepdim=True).clamp_max(BINS - 1)
        held = counts.gather(-1, place)
        within = 1 - (cumulated.gather(-1, place) - target) / held.clamp_min(1e-30)
        position = (place + within.clamp(0, 1))[..., 0]
        return (self._low[index, None] + position * self._width[index, None]).exp()


def _layers(profile: LayerProfile, layers: Sequence[int] | None) -> tuple[int, ...]:
    chosen = tuple(sorted(profile.chosen_layers if layers is None else layers))
    if not chosen:
        raise NormprobeError("expected at least one layer, got none; name the layers")
    if absent := [layer for layer in chosen if not 0 <= layer < len(profile.tau)]:
        raise NormprobeError(
            f"expected layers 0…{len(profile.tau) - 1}, got {absent}; use layers that the profile has"
        )
    return chosen
