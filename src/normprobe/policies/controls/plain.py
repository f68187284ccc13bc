"""The plain model, as a policy: the same path through an engine, and nothing changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.policies.rows import Change, Rerun, Rows, Stateless


@dataclass(frozen=True)
class Plain(Stateless):
    """Changes nothing at these layers."""

    layers: tuple[int, ...]

    kind: ClassVar[str] = "probe"

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """The rows as they are."""
        return Change(rows.hidden, torch.zeros_like(rows.eligible))
