"""Checks of settings."""

from __future__ import annotations

import math

from normprobe.errors import NormprobeError


def check_within(
    name: str, value: int | float, low: int | float, high: int | float = math.inf, hint: str = "correct it"
) -> None:
    """Raises NormprobeError unless low ≤ value ≤ high; NaN is outside. hint: what to do."""
    if not low <= value <= high:
        interval = f"≥ {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise NormprobeError(f"expected {name} {interval}, got {value}; {hint}")
