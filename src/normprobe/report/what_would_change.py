"""What would change each verdict: the margin against its smallest effect, the control that bounds it, what it takes.

A verdict is a statement about one interval, so what would turn it can be computed from that interval alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from normprobe.claims.evidence import Decision, Evidence
from normprobe.claims.margin import NO_EFFECT
from normprobe.labels import in_words
from normprobe.report.figure import Drawing
from normprobe.report.findings import NothingToDraw
from normprobe.report.table import count, number, span
from normprobe.stats.verdict import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, VACUOUS
from normprobe.style import GREY, VERDICT_COLOURS

# A shape for each, for black and white; filled where the margin decided.
_MARKS = {SUPPORTED: "o", NOT_SUPPORTED: "X", INCONCLUSIVE: "D", VACUOUS: "o"}
_EDGE = 10.0  # where the figure ends, in smallest effects: one point further off says no more


def what_would_change(evidence: Evidence) -> str:
    """In words, what it would take for another verdict."""
    decision = evidence.decision
    low, _ = decision.interval
    name = binding(decision)
    if evidence.verdict == VACUOUS:
        return f"No margin would: the test says nothing here. {in_words(evidence.reason)}"
    if evidence.verdict == INCONCLUSIVE:
        return _settle(evidence)
    if evidence.verdict == SUPPORTED:
        room = number(low - decision.smallest_effect)
        if decision.strongest == NO_EFFECT:
            exceeded = f"one would have to exceed it by more than {room}"
            return f"No control reaches the value of no effect; {exceeded}."
        return f"{name[:1].upper()}{name[1:]} would have to be stronger by more than {room}."
    asked = number(decision.margin + decision.smallest_effect - low)
    now = "lies above it" if decision.margin >= 0 else "lies below it"
    return (
        f"The estimate would have to exceed {name} by more than {asked} (the smallest effect and half the "
        f"interval); it {now} by {number(abs(decision.margin))}."
    )


def binding(decision: Decision) -> str:
    """The control that bounds the margin, its form in brackets; empty where a control is missing."""
    name = "the value of no effect" if decision.strongest == NO_EFFECT else in_words(decision.strongest)
    return f"{name} ({in_words(decision.form)})" if decision.form else name


def problems_needed(decision: Decision, n: int) -> int | None:
    """How many problems would settle an open margin that stays where it is, the interval's half-width falling as 1/√n.

    The half that counts is the one towards the smallest effect. None where no number would: a margin that is not
    there, or one that equals its smallest effect.
    """
    distance = abs(decision.margin - decision.smallest_effect)
    low, high = decision.interval
    half = decision.margin - low if decision.margin > decision.smallest_effect else high - decision.margin
    if not (distance > 0 and math.isfinite(half)):
        return None
    # A little more than that, so that rounding does not leave the interval's end on the smallest effect.
    return math.floor(n * (half / distance) ** 2 * (1 + 1e-9)) + 1


def _settle(evidence: Evidence) -> str:
    decision = evidence.decision
    if decision.missing:
        forms = Counter(name for _, name in decision.missing)
        lacking = (in_words(f"{name} (in {n} forms)" if n > 1 else name) for name, n in forms.items())
        return f"What is missing has to be computed: {', '.join(lacking)}."
    if evidence.reason:
        return f"Not the margin: another condition of the rule leaves it open. {in_words(evidence.reason)}"
    n = problems_needed(decision, evidence.n)
    if n is None:
        return "No number of problems would settle it: the margin equals its smallest effect, or has no interval."
    verdict = SUPPORTED if decision.margin > decision.smallest_effect else NOT_SUPPORTED
    return (
        f"If the margin stays, about {count(n)} {evidence.n_unit} instead of {count(evidence.n)} would settle it as "
        f"{verdict}."
    )


def draw_margins(axes: Any, evidence: Sequence[Evidence]) -> None:
    """Each margin with its interval in units of its smallest effect (dashed), named with the control that binds."""
    from matplotlib.transforms import blended_transform_factory

    axes.axvline(0.0, color=GREY, linewidth=0.6)
    axes.axvline(1.0, color="black", linestyle="--", linewidth=0.8)
    names = []
    for height, item in zip(range(len(evidence), 0, -1), evidence, strict=True):
        decision = item.decision
        beneath = "a control is missing" if decision.missing else f"against {decision.strongest}"
        names.append(f"{item.claim}\n{beneath}")
        if math.isnan(decision.margin):
            continue
        at = np.array([decision.margin, *decision.interval]) / decision.smallest_effect
        shown, low, high = np.clip(at, -_EDGE, _EDGE)
        axes.hlines(height, low, high, color=VERDICT_COLOURS[item.verdict])
        axes.plot(shown, height, **_mark(item.verdict), markersize=6)
        if shown != at[0]:
            axes.annotate(
                f"{at[0]:.0f}", (shown, height), (0, 6), textcoords="offset points", ha="center", fontsize=6
            )
    axes.set_yticks(range(len(evidence), 0, -1), names)
    axes.set_ylim(0.4, len(evidence) + 0.6)
    axes.set_xlabel("margin ÷ smallest effect of interest")
    verdicts = [verdict for verdict in _MARKS if verdict in {item.verdict for item in evidence}]
    for verdict in verdicts:
        axes.plot([], [], **_mark(verdict), label=verdict)
    middle = blended_transform_factory(axes.figure.transFigure, axes.transAxes)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), bbox_transform=middle, ncols=2)


def margins(evidence: Sequence[Evidence]) -> Drawing:
    """The figure of `draw_margins`, as high as its rows need. Raises NothingToDraw where no claim was judged."""
    if not evidence:
        raise NothingToDraw("no claim was judged")
    n = [item.n for item in evidence]
    caption = (
        "Each claim's margin (the estimate less its strongest control, named below the claim) in units of its smallest "
        "effect of interest, with its 95 % interval. A claim is supported where the interval lies right of the dashed "
        "line, and not supported where it lies left of it. "
        f"n = {span(min(n), max(n))} problems, by claim."
    )
    height = 0.8 + 0.36 * len(evidence)
    return Drawing("Margins", caption, lambda axes: draw_margins(axes[0], evidence), height=height)


def _mark(verdict: str) -> dict[str, Any]:
    colour = VERDICT_COLOURS[verdict]
    face = colour if verdict in (SUPPORTED, NOT_SUPPORTED) else "white"
    return {"marker": _MARKS[verdict], "linestyle": "none", "color": colour, "markerfacecolor": face}
