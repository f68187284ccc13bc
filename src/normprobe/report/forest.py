"""The forest plot: where each claim's margin lies between its strongest control (0) and its smallest effect (1).

Claims have units of their own; divided by its smallest effect every margin stands on one axis. The axis is that of
asinh: even around 0, logarithmic further out, so that one large margin does not flatten the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from normprobe.report.findings import Finding
from normprobe.report.plain_sentence import plain_sentence, strongest

TICKS = (-100.0, -30.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
CLOSEST = (-3.0, 3.0)
"""The axis reaches at least from here to there, in smallest effects."""
_EDGE = 3.0  # per cent of the width that stay free on both sides


@dataclass(frozen=True)
class ForestRow:
    """A claim in the plot: the sentence about it, and where its margin and the ends of its interval lie, in per cent
    of the width; None where there is no margin, no ends where there is no interval."""

    finding: Finding
    sentence: str
    margin: float | None
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class Forest:
    """The rows, and the axis: places in per cent of the width by label, the control's and the smallest effect's."""

    rows: list[ForestRow]
    ticks: dict[str, float]
    control: float
    smallest: float


def forest(findings: Sequence[Finding]) -> Forest:
    """The plot of all claims of a run."""
    spans = [_in_smallest_effects(finding) for finding in findings]
    known = [value for span in spans for value in span if math.isfinite(value)]
    low, high = min([CLOSEST[0], *known]), max([CLOSEST[1], *known])

    def place(value: float) -> float:
        share = (math.asinh(value) - math.asinh(low)) / (math.asinh(high) - math.asinh(low))
        return round(_EDGE + (100 - 2 * _EDGE) * share, 2)

    rows = [
        ForestRow(
            finding,
            plain_sentence(finding.claim, finding.evidence),
            place(margin) if math.isfinite(margin) else None,
            (place(ends[0]), place(ends[1])) if all(map(math.isfinite, ends)) else None,
        )
        for finding, (margin, *ends) in zip(findings, spans, strict=True)
    ]
    return Forest(
        rows, {f"{tick:g}": place(tick) for tick in TICKS if low <= tick <= high}, place(0.0), place(1.0)
    )


def forest_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """The numbers behind the plot, a row per claim, in its unit and in the form of its rule that decides: `estimate`
    less `control` is `margin`, with its 95 % interval `low` to `high`. NaN where there is no margin."""
    rows = []
    for finding in findings:
        item, decision = finding.evidence, finding.evidence.decision
        control = strongest(finding.claim, item)
        rows.append(
            {
                "claim": item.claim,
                "verdict": item.verdict,
                "form": decision.form,
                "estimate": control + decision.margin,
                "strongest_control": decision.strongest,
                "control": control,
                "margin": decision.margin,
                "low": decision.interval[0],
                "high": decision.interval[1],
                "smallest_effect": decision.smallest_effect,
                "unit": item.unit,
                "n": item.n,
                "n_unit": item.n_unit,
            }
        )
    return pd.DataFrame(rows)


def _in_smallest_effects(finding: Finding) -> tuple[float, float, float]:
    """Margin and ends of its interval."""
    decision = finding.evidence.decision
    low, high = (end / decision.smallest_effect for end in decision.interval)
    return decision.margin / decision.smallest_effect, low, high
