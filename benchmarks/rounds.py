"""From measured rounds to a result: the median with its precision, printed and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normprobe.runs.files import atomic_write_json, atomic_write_text, refusing_disk_errors
from normprobe.stats.bootstrap import percentile_interval

PRECISE = 0.02
"""A target, of whatever kind, is met only if the half-width is no larger."""


def median(values: np.ndarray, rng: np.random.Generator, name: str) -> dict[str, float]:
    """The median over rounds under `name`, and half the width of its 95 % interval (percentile bootstrap)."""
    draws = np.median(rng.choice(values, (4000, len(values))), axis=1)
    low, high = percentile_interval(draws)
    return {name: float(np.median(values)), "half_width": float(high - low) / 2}


def meets(measured: Mapping[str, float], name: str, *, least: float = -np.inf, most: float = np.inf) -> bool:
    """Whether what `median` found lies within these bounds, and precisely enough to say so."""
    return least <= measured[name] <= most and measured["half_width"] <= PRECISE


def publish(result: Mapping[str, Any], markdown: str, out: Path | None) -> None:
    """Print the tables; write `out` (JSON) and the tables beside it, if there is one."""
    print(markdown)
    if out is not None:
        with refusing_disk_errors(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_json(out, dict(result))
            atomic_write_text(out.with_suffix(".md"), markdown)
