"""From per-problem arrays to a verdict: resample problems, compare with the strongest control, apply the rule.

Every statistic of a claim is a vector of **draws**: entry 0 is its value on the problems as they are, the others on
resampled problems. All statistics of a claim share one set of resamplings, so differences between a model and its
controls are paired, and the strongest control is found anew in every resampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.claims.evidence import Control, Decision
from normprobe.runs.tables import Tables
from normprobe.stats.bootstrap import REPLICATES, bootstrap_weights, percentile_interval, weighted_means
from normprobe.stats.verdict import decide

READER_NAMES = {
    "model": "this model",
    "untrained": "untrained twin",
    "random": "random dictionary",
    "early": "early checkpoint",
}

NO_EFFECT = "no effect"

Draws = Float[np.ndarray, " draw"]


@dataclass(frozen=True)
class Resampling:
    """How a claim draws: called with a number of problems it says how often each counts in each draw (the first row is
    the sample itself); `rng` is for whatever else is random in a claim."""

    rng: np.random.Generator

    def __call__(self, n_problems: int) -> Float[np.ndarray, "draw problem"]:
        return np.vstack([np.ones((1, n_problems)), bootstrap_weights(n_problems, REPLICATES, self.rng)])


def average(
    weights: Float[np.ndarray, "draw problem"], values: Float[np.ndarray, "problem layer"]
) -> Float[np.ndarray, "draw layer"]:
    """Mean over problems in every draw, problems with NaN left out layer by layer; NaN for a draw that has no other."""
    known = np.isfinite(values)
    sums, counts = (
        weighted_means(weights, part) for part in (np.where(known, values, 0.0), known.astype(float))
    )
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def interval(draws: Draws) -> tuple[float, float]:
    """95 % percentile interval of the draws beyond the first."""
    low, high = percentile_interval(draws[1:])
    return float(low), float(high)


@dataclass(frozen=True)
class Form:
    """One way of measuring: an estimate and the controls it must beat (None: a control that cannot be computed)."""

    estimate: Draws | None
    controls: Mapping[str, Draws | None]

    @classmethod
    def of(cls, named: Mapping[str, Draws | None]) -> Form:
        """From numbers by name, the model's under its own and every control's under the control's."""
        return cls(
            named[READER_NAMES["model"]],
            {name: draws for name, draws in named.items() if name != READER_NAMES["model"]},
        )

    def beaten_by(self, null: float) -> dict[str, Draws]:
        """`null` (the value of no effect) and the controls that could be computed: what the estimate must exceed."""
        known = {name: draws for name, draws in self.controls.items() if draws is not None}
        size = next(
            (len(draws) for draws in known.values()), 1 if self.estimate is None else len(self.estimate)
        )
        return {NO_EFFECT: np.full(size, null), **known}

    @property
    def missing(self) -> list[str]:
        """What could not be computed."""
        lacking = [name for name, draws in self.controls.items() if draws is None]
        return [*(["the estimate"] if self.estimate is None else []), *lacking]

    def margin(self, null: float) -> Draws | None:
        """Estimate − the strongest of what it must exceed, found anew in every draw; None if anything is missing."""
        if self.estimate is None or self.missing:
            return None
        return self.estimate - np.maximum.reduce(list(self.beaten_by(null).values()))


def judge(forms: Mapping[str, Form], null: float, smallest_effect: float) -> tuple[str, Decision]:
    """The verdict, and the margin it rests on: that of the weakest form (by name), found anew in every draw.

    Inconclusive, without a margin, if a form or a control cannot be computed.
    """

    def full(form: str, control: str) -> str:
        return f"{form}: {control}" if form else control

    missing = tuple(full(name, lacking) for name, form in forms.items() for lacking in form.missing)
    margins = {name: margin for name, form in forms.items() if (margin := form.margin(null)) is not None}
    if missing:
        nothing = (float("nan"), float("nan"))
        return decide(None, smallest_effect), Decision(
            float("nan"), nothing, smallest_effect, "", missing, float("nan")
        )
    weakest = np.minimum.reduce(list(margins.values()))
    name = min(margins, key=lambda form: margins[form][0])
    rivals = forms[name].beaten_by(null)
    strongest = full(name, max(rivals, key=lambda rival: rivals[rival][0]))
    # The sample counts as one of its resamples, so p is never 0; a draw without a value counts against the claim.
    p = (1 + int((~(weakest[1:] > smallest_effect)).sum())) / len(weakest)
    ends = interval(weakest)
    decision = Decision(float(weakest[0]), ends, smallest_effect, strongest, (), p, weakest)
    return decide(ends, smallest_effect), decision


def beside(name: str, draws: Draws | None) -> Control:
    """A row for the evidence; NaN (null in JSON) where it could not be computed."""
    if draws is None:
        return Control(name, float("nan"), (float("nan"), float("nan")))
    return Control(name, float(draws[0]), interval(draws))


def null_subjects(tables: Tables) -> list[str]:
    """Subjects that a claim must beat: the untrained twin always, the early checkpoint where the run has one."""
    return ["untrained", *(["early"] if tables.has("signals/early") else [])]


def null_readers(tables: Tables) -> list[str]:
    """The same for claims that read dictionaries: also a random one of the same shape, reading the model itself."""
    return ["untrained", "random", *null_subjects(tables)[1:]]


def subject_of(reader: str) -> str:
    """The model whose states a reader's dictionary reads."""
    return "model" if reader == "random" else reader


def series(
    quantity: str, name: str, draws: Float[np.ndarray, "draw layer"], layers: Sequence[int]
) -> pd.DataFrame:
    """Tidy rows, one per layer: quantity, name, layer, estimate, low, high."""
    low, high = percentile_interval(draws[1:])
    return pd.DataFrame(
        {
            "quantity": quantity,
            "name": name,
            "layer": list(layers),
            "estimate": draws[0],
            "low": low,
            "high": high,
        }
    )


def row(quantity: str, name: str, draws: Draws) -> pd.DataFrame:
    """One tidy row for a number that belongs to no single layer (layer −1)."""
    return series(quantity, name, draws[:, None], [-1])


def said(draws: Draws | None) -> str:
    """A number with its interval as a note has it: `0.42 [0.31, 0.53]`."""
    if draws is None or np.isnan(draws[0]):
        return "(not computed)"
    low, high = interval(draws)
    return f"{draws[0]:z.2f} [{low:z.2f}, {high:z.2f}]"
