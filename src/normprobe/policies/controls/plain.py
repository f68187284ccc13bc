"""The plain model, as a policy: the same path through an engine, and nothing changed."""

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
        """The rows as they are."""
        return Change(rows.hidden, torch.zeros_like(rows.eligible))
