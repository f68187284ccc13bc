"""What every function of this package returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    value in `unit`; interval (low, high) in the same unit, (NaN, NaN) where none can be had; n counts `n_unit`
    (the independent units, usually problems); p is a p-value where the function makes a test, else NaN.
    """

    value: float
    interval: tuple[float, float]
    n: int
    n_unit: str
    unit: str
    p: float = float("nan")
