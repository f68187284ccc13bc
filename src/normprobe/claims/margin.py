"""The rule of every claim: the margin of the estimate over its strongest control, in the weakest of its forms.

Both are found anew in every draw, so that neither the control nor the form is chosen by looking at the sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from normprobe.claims.evidence import Control, Decision
from normprobe.claims.measure.readers import MODEL
from normprobe.claims.measure.resampling import Draws, interval

NO_EFFECT, ESTIMATE = "no effect", "the estimate"
_NOTHING = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Form:
    """One way of measuring: an estimate and the controls it must exceed.

    None, or a value that is not finite: a number that cannot be computed. A control that is constant because it reads
    nothing is such a number, and never 0: it would be exceeded by whatever the model does.
    name: what the estimate belongs to; quantity: what the numbers are, where that is not the claim's unit.
    """

    estimate: Draws | None
    controls: Mapping[str, Draws | None]
    name: str = MODEL
    quantity: str = ""

    @classmethod
    def of(cls, named: Mapping[str, Draws | None]) -> Form:
        """From numbers by name, the model's under its own and every control's under the control's."""
        return cls(named[MODEL], {name: draws for name, draws in named.items() if name != MODEL})

    @property
    def missing(self) -> list[str]:
        """What could not be computed."""
        return [
            name
            for name, draws in {ESTIMATE: self.estimate, **self.controls}.items()
            if draws is None or not np.isfinite(draws[0])
        ]

    def margin(self, null: float) -> tuple[Draws, str] | None:
        """Estimate − the strongest of `null` (the value of no effect) and its controls, found anew in every draw, with
        the name of the strongest on the sample itself; None if anything is missing."""
        if self.estimate is None or self.missing:
            return None
        rivals = {name: draws for name, draws in self.controls.items() if draws is not None}
        rivals = {NO_EFFECT: np.full(len(self.estimate), null), **rivals}
        strongest = max(rivals, key=lambda rival: rivals[rival][0])
        return self.estimate - np.maximum.reduce(list(rivals.values())), strongest

    def rows(self, form: str, estimate: Draws) -> list[Control]:
        """The form's numbers as rows of the evidence, its own estimate left out where it is the claim's `estimate`."""
        named = {} if self.estimate is estimate else {self.name: self.estimate}
        return [
            control(form, name, draws, decides=True, quantity=self.quantity)
            for name, draws in {**named, **self.controls}.items()
        ]


def control(
    form: str, name: str, draws: Draws | None, *, decides: bool = False, quantity: str = ""
) -> Control:
    """A row of the evidence from a number's draws; NaN where it could not be computed."""
    estimate, ends = (float("nan"), _NOTHING) if draws is None else (float(draws[0]), interval(draws))
    return Control(form, name, decides, estimate, ends, quantity)


def decide_by_margin(forms: Mapping[str, Form], null: float, smallest_effect: float) -> Decision:
    """The lowest margin of all forms in every draw, with its interval and its one-sided p.

    Without a margin (NaN) if a form or a control cannot be computed.
    """
    margins = {name: margin for name, form in forms.items() if (margin := form.margin(null))}
    if len(margins) < len(forms):
        missing = tuple((name, lacking) for name, form in forms.items() for lacking in form.missing)
        return Decision(float("nan"), _NOTHING, smallest_effect, "", "", missing, float("nan"))
    draws = np.minimum.reduce([margin for margin, _ in margins.values()])
    weakest = min(margins, key=lambda name: margins[name][0][0])
    strongest = margins[weakest][1]
    # The sample counts as one of its resamples, so p is never 0; a draw without a value counts against the claim.
    p = (1 + int((~(draws[1:] > smallest_effect)).sum())) / len(draws)
    return Decision(float(draws[0]), interval(draws), smallest_effect, weakest, strongest, (), p, draws)
