"""Suppression at random tokens: the paper's matched control of its causal experiment (arXiv 2606.06188).

It shortens as many tokens as the suppression of high norms did, by as much, but tokens drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int

from normprobe.errors import NormprobeError
from normprobe.policies.draws import request_key
from normprobe.policies.policy import Cost, Policy, RunningPolicy
from normprobe.policies.rows import Change, Rerun, Rows, norms
from normprobe.policies.suppression import check_scale


@dataclass(frozen=True)
class Doses:
    """How much of each state a treatment removed: what the matched random treatment has to remove elsewhere.

    delta: ‖Δh‖ in activation units by request, step and chosen layer; 0 where the state was left alone.
    n_steps: the states each request had, at least 1 (steps beyond it are padding of `delta`).
    layers: the layer of each column of `delta`.
    requests: their names.
    """

    delta: Float[torch.Tensor, "request step layer"]
    n_steps: Int[torch.Tensor, " request"]
    layers: tuple[int, ...]
    requests: tuple[str, ...]

    def shuffled(self, seed: int, groups: Int[torch.Tensor, "request step"] | None = None) -> Doses:
        """Deal the doses of each request to its tokens at random; given groups, to tokens of the same group.

        One permutation of the steps per request, keyed by (seed, the request's name) alone and so independent of the
        batch and of any norm. All layers of a token move together: the numbers of tokens per layer, the tokens hit in
        several layers and the sizes ‖Δh‖ stay exactly as they were, in each group too. A group of one keeps its dose.
        """
        delta = self.delta.clone()
        for at, (request, n) in enumerate(zip(self.requests, self.n_steps.tolist(), strict=True)):
            drawn = np.random.default_rng([seed, request_key(request)]).permutation(n)
            group = np.zeros(n) if groups is None else groups[at, :n].numpy()
            # Group by group, the steps as they come receive from the steps as they were drawn.
            source = np.empty(n, dtype=np.int64)
            source[np.argsort(group, kind="stable")] = drawn[np.argsort(group[drawn], kind="stable")]
            delta[at, :n] = self.delta[at, torch.from_numpy(source)]
        return Doses(delta, self.n_steps, self.layers, self.requests)

    def share_on_tokens_of(self, other: Doses) -> Float[torch.Tensor, " request"]:
        """By request, the share of the tokens dosed here that `other` doses too; NaN where none is dosed here."""
        here, there = (self.delta > 0).any(dim=2), (other.delta > 0).any(dim=2)
        return (here & there).sum(dim=1) / here.sum(dim=1)


@dataclass(frozen=True)
class ReplayedSuppression(Policy):
    """Shorten the states that the doses name, whatever their norm: a matched control, given shuffled doses.

    doses: by request; one that outlives its doses starts them again, so its share of changed tokens stays the same.
    scale: a factor h → scale · h wherever there is a dose; or None, to take exactly the dose off along h:
        h → (1 − ‖Δh‖/‖h‖) · h. A dose longer than the state carries it through zero, else no short state could match
        what a long one lost; it stops at −h (‖Δh‖ = 2‖h‖), so that the control never makes a norm that was not there.

    Raises NormprobeError for a scale outside [0, 1].
    """

    doses: Doses
    scale: float | None = None

    kind: ClassVar[str] = "suppression"

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_scale(self.scale)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.doses.layers

    def cost(self, state_bytes: int) -> Cost:
        return Cost(8)  # where its doses stand

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        doses = replace(self.doses, delta=self.doses.delta.to(device), n_steps=self.doses.n_steps.to(device))
        request = torch.zeros(n_slots + 1, dtype=torch.int64, device=device)
        return _RunningReplay(replace(self, doses=doses), request)


@dataclass(frozen=True)
class _RunningReplay(RunningPolicy):
    settings: ReplayedSuppression
    request: Int[torch.Tensor, " slot"]  # the row of the doses that each slot's request has

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        known = {name: at for at, name in enumerate(self.settings.doses.requests)}
        if strangers := [name for name in requests if name not in known]:
            raise NormprobeError(
                f"expected requests that have doses, got {', '.join(strangers[:3])}; replay the requests of the "
                "treatment that the doses come from"
            )
        at = torch.tensor(list(slots), dtype=torch.int64, device=self.request.device)
        self.request[at] = torch.tensor([known[name] for name in requests], device=self.request.device)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        doses, scale = self.settings.doses, self.settings.scale
        request = self.request[rows.slot]
        step = rows.step.clamp_min(0) % doses.n_steps[request]
        dose = doses.delta[request, step, doses.layers.index(layer)]
        chosen = rows.eligible & (dose > 0)
        if scale is None:
            # The smallest divisor only guards the zero state, which any factor leaves as it is.
            scale = (1 - dose / norms(rows.hidden).clamp_min(1e-12)).clamp_min(-1)[:, None]
        shortened = (scale * rows.hidden).to(rows.hidden.dtype)
        return Change(torch.where(chosen[:, None], shortened, rows.hidden), chosen)
