"""Policies that change nothing: the plain model on the same path through an engine, and a log of its entropies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from normprobe.policies.policy import Stateless
from normprobe.policies.rows import Change, Rerun, Rows


@dataclass(frozen=True)
class Plain(Stateless):
    """Changes nothing. sites: the layers after which an engine calls it."""

    sites: tuple[int, ...]

    kind: ClassVar[str] = "probe"

    @property
    def layers(self) -> tuple[int, ...]:
        return self.sites

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        return Change(rows.hidden, torch.zeros_like(rows.eligible))


@dataclass(frozen=True)
class EntropyLog(Plain):
    """Changes nothing; collects the output entropy that each generated token was drawn with, in nats. sites: one."""

    entropies: list[torch.Tensor] = field(default_factory=list)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        assert rows.entropy is not None
        self.entropies.append(torch.where(rows.eligible, rows.entropy, torch.nan))
        return super().apply(rows, layer, rerun)

    def above(self, share: float) -> float:
        """The entropy above which this share of the tokens lies."""
        return float(np.nanquantile(torch.cat(self.entropies).cpu().numpy(), 1 - share))
