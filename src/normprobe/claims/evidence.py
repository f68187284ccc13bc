"""Evidence: what a claim returns, and how it is written to `evidence/verdicts.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from normprobe.stats.verdict import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, VACUOUS

VERDICTS = (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, VACUOUS)


def _number(value: float) -> float | None:
    """JSON knows neither NaN nor infinity: both become null."""
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Control:
    """What the same estimator gives where the claim should fail; same unit as the estimate beside it."""

    name: str
    estimate: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "estimate": _number(self.estimate),
            "interval": [_number(end) for end in self.interval],
        }


@dataclass(frozen=True)
class Decision:
    """What the rule was applied to: the margin of the estimate over its strongest control, in the estimate's unit.

    strongest: the control that bounds the margin (`form: control` where there are several forms), "no effect" if no
    control reaches that; missing: controls that could not be computed, which leave no margin (NaN); p: one-sided,
    of a margin no larger than `smallest_effect` (share of resamples, NaN without a margin); draws: the margin in every
    resample, the sample itself first (not written to files).
    """

    margin: float
    interval: tuple[float, float]
    smallest_effect: float
    strongest: str
    missing: tuple[str, ...]
    p: float
    draws: Float[np.ndarray, " draw"] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        return {
            "margin": _number(self.margin),
            "interval": [_number(end) for end in self.interval],
            "smallest_effect": self.smallest_effect,
            "strongest": self.strongest,
            "missing": list(self.missing),
            "p": _number(self.p),
        }


@dataclass(frozen=True)
class Evidence:
    """One claim, judged.

    `estimate` and `interval` are in `unit`; `n` counts `n_unit` (usually problems). `rule` is the text that was
    fixed before the data were seen; `note` says in plain words what a reader must know beside the number.
    Raises ValueError for a verdict that is not one of `VERDICTS`.
    """

    claim: str
    statement: str
    verdict: str
    rule: str
    estimate: float
    unit: str
    interval: tuple[float, float]
    n: int
    n_unit: str
    controls: tuple[Control, ...]
    decision: Decision
    seed: int
    note: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"expected a verdict in {VERDICTS}, got {self.verdict!r}")

    def to_dict(self) -> dict[str, object]:
        """Plain types only, non-finite numbers as None: `json.dumps(..., allow_nan=False)` accepts it."""
        return {
            "claim": self.claim,
            "statement": self.statement,
            "verdict": self.verdict,
            "rule": self.rule,
            "estimate": _number(self.estimate),
            "unit": self.unit,
            "interval": [_number(end) for end in self.interval],
            "n": int(self.n),
            "n_unit": self.n_unit,
            "controls": [control.to_dict() for control in self.controls],
            "decision": self.decision.to_dict(),
            "seed": int(self.seed),
            "note": self.note,
        }
