"""A policy that changes nothing: the plain model on the same path through an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
