"""One sentence on each claim in plain words: what the model shows, what its strongest control shows, what was asked."""

from __future__ import annotations

import math

from normprobe.claims.claim import Claim
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import NO_EFFECT
from normprobe.labels import in_words
from normprobe.report.table import with_interval
from normprobe.stats.verdict import INCONCLUSIVE, SUPPORTED, VACUOUS


def plain_sentence(claim: Claim, evidence: Evidence) -> str:
    """What was found on the claim, with its numbers, in the form of it that decides."""
    decision = evidence.decision
    if evidence.verdict == VACUOUS or (evidence.verdict == INCONCLUSIVE and evidence.reason):
        begin = "The test says nothing here" if evidence.verdict == VACUOUS else "It cannot be judged"
        return f"{begin}: {in_words(evidence.reason)}"
    against, margin = strongest(claim, evidence), decision.margin
    shown, control, by = _alike([against + margin, against, abs(margin)], decision.interval)
    form = f" ({in_words(decision.form)})" if decision.form != evidence.form else ""
    what = claim.measured or "the estimate"
    begin = f"{what[:1].upper()}{what[1:]}{form} is {shown}"
    if decision.strongest == NO_EFFECT:
        rival = f"no effect ({control})"
    else:
        rival = f"its strongest control ({in_words(decision.strongest)}: {control})"
    asked = f"{decision.smallest_effect:g}"
    if evidence.verdict == SUPPORTED:
        return f"{begin}, above {rival} by {by}; asked was {asked}."
    if evidence.verdict == INCONCLUSIVE and not all(map(math.isfinite, decision.interval)):
        return (
            f"{begin}, against {rival}; without an interval nobody can tell whether it lies {asked} above it."
        )
    if evidence.verdict == INCONCLUSIVE:
        return f"{begin}, against {rival}: too uncertain to tell whether it lies {asked} above it."
    if math.isclose(margin, 0.0, abs_tol=1e-12):
        return f"{begin}, the same as {rival}; asked was {asked} above it."
    if margin > 0:
        return f"{begin}, above {rival} by {by} only; asked was {asked}."
    return f"{begin}, below {rival}; asked was {asked} above it."


def _alike(values: list[float], interval: tuple[float, float]) -> list[str]:
    """Numbers to as many decimals as the width of an interval deserves."""
    return [with_interval(value, interval).split(" [")[0] for value in values]


def strongest(claim: Claim, evidence: Evidence) -> float:
    """The value of the control that bounds the margin, or of no effect; NaN where there is no margin."""
    decision = evidence.decision
    if decision.strongest == NO_EFFECT:
        return claim.null
    of_form = (control for control in evidence.controls if control.form == decision.form)
    found = (control.estimate for control in of_form if control.name == decision.strongest)
    return next(found, math.nan)
