"""Evidence on a claim: its estimate, its controls and its verdict, and the JSON in which a run keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from normprobe.stats.verdict import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, VACUOUS, decide

VERDICTS = (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, VACUOUS)
_KINDS: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "float": float}


@dataclass(frozen=True)
class Control:
    """A number to hold against the estimate: the same estimator where the claim should fail, or another form of it.

    form: the way of measuring, as in `Decision`; name: what was measured, such as "untrained twin"; decides: whether
    the rule reads it; quantity: what the number is, where that is not the claim's unit. NaN where not computed.
    """

    form: str
    name: str
    decides: bool
    estimate: float
    interval: tuple[float, float]
    quantity: str = ""

    @property
    def label(self) -> str:
        """What was measured, in words, without its form."""
        return f"{self.quantity}, {self.name}" if self.quantity else self.name


@dataclass(frozen=True)
class Decision:
    """What a verdict rests on: the margin of the estimate over its strongest control, in the estimate's unit.

    form: the form with the lowest margin, "" where a claim has only one; strongest: the control that bounds the margin
    there, or "no effect" if no control reaches that value; missing: (form, name) of what could not be computed, which
    leaves no margin (NaN); p: one-sided, of a margin no larger than `smallest_effect` (share of resamples); draws: the
    margin in every resample, the sample itself first (not written to files).
    """

    margin: float
    interval: tuple[float, float]
    smallest_effect: float
    form: str
    strongest: str
    missing: tuple[tuple[str, str], ...]
    p: float
    draws: Float[np.ndarray, " draw"] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """Verdict of the margin alone; a missing control leaves it inconclusive."""
        return decide(self.interval, self.smallest_effect)


@dataclass(frozen=True)
class Evidence:
    """The evidence on one claim, with its verdict.

    `estimate` and `interval` are in `unit`, measured in the form `form`; `n` counts `n_unit` (usually problems). `rule`
    is the text that was fixed before the data were seen; `reason` says why the verdict is not that of the margin, or
    why there is none (else empty); `note` says in plain words what a reader must know. `version` is the claim's.
    `allowed` names failed conditions of the responses that the user allowed. Raises ValueError for a verdict that is
    not one of `VERDICTS`.
    """

    claim: str
    version: int
    statement: str
    verdict: str
    reason: str
    rule: str
    form: str
    estimate: float
    unit: str
    interval: tuple[float, float]
    n: int
    n_unit: str
    controls: tuple[Control, ...]
    decision: Decision
    seed: int
    note: str
    allowed: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"expected a verdict in {VERDICTS}, got {self.verdict!r}")

    def _check(self) -> None:
        """Raises ValueError for a text, count or flag of another type: what a file holds may be anything."""
        for entry in (self, self.decision, *self.controls):
            for item in fields(entry):
                value, kind = getattr(entry, item.name), _KINDS.get(str(item.type))
                if kind is not None and type(value) is not kind:
                    raise ValueError(f"expected {item.name} as {item.type}, got {value!r}")
        if not all(isinstance(part, str) for pair in self.decision.missing for part in pair):
            raise ValueError(f"expected names of what is missing, got {self.decision.missing!r}")

    @property
    def full_unit(self) -> str:
        """The unit with the form that the estimate is measured in."""
        return f"{self.unit}; {self.form}" if self.form else self.unit

    @property
    def own_controls(self) -> list[Control]:
        """The controls of the estimate as it stands, those of other forms left out."""
        return [control for control in self.controls if control.form == self.form]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, non-finite numbers as None: `json.dumps(..., allow_nan=False)` accepts it."""
        plain = _plain(asdict(self))
        del plain["decision"]["draws"]
        return plain

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Evidence:
        """The evidence that `to_dict` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        controls = tuple(Control(**_read(control, "estimate")) for control in entry["controls"])
        decision = _read(entry["decision"], "margin", "p", "smallest_effect")
        decision["missing"] = tuple((form, name) for form, name in decision["missing"])
        evidence = cls(**_read(entry, "estimate") | {"controls": controls, "decision": Decision(**decision)})
        evidence._check()
        return evidence


def _plain(value: Any) -> Any:
    """Tuples as lists; NaN and infinity, which JSON does not know, as None."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(entry: Mapping[str, Any], *numbers: str) -> dict[str, Any]:
    """The entry with the named numbers and the interval as floats, None as NaN."""

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    low, high = map(number, entry["interval"])
    return {**entry, **{name: number(entry[name]) for name in numbers}, "interval": (low, high)}
