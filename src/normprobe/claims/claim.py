"""The type of a claim: what it says, how it is measured and shown, and the rule that judges it.

A claim is one file of this folder with a module-level `CLAIM`. Whatever shows claims (tables, captions, figures, the
report, the audit) reads them from `claims.registry.CLAIMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from normprobe.claims.evidence import Control, Evidence
from normprobe.claims.margin import Form, decide_by_margin
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Draws, Resampling, interval
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables
from normprobe.stats.verdict import NOT_SUPPORTED
from normprobe.thinking_formats import MODES

NOT_THERE = "the run has no such numbers, or they are all the same"
Panel = Callable[[Any, pd.DataFrame, Evidence], None]
"""Draws on matplotlib axes, from the claim's series and its evidence."""


@dataclass(frozen=True)
class Override:
    """A verdict that a condition of the rule puts in the place of the margin's, and why.

    denied_by: only where the margin would deny the claim, and this control is the one that denies it.
    """

    verdict: str
    reason: str
    denied_by: str = ""


@dataclass(frozen=True)
class Measurement:
    """What a claim measured on a run, before it is judged.

    forms: what the rule compares; form: the one that the claim's number is measured in; estimate: that number in every
    draw, in the claim's unit, where it is not the form's own; further: numbers that are shown and decide nothing;
    series: the tidy table that the panel draws; overrides: conditions of the rule that are met, of which the first that
    applies decides before the margin does; lacking: why what a form names cannot be computed, where that is known.
    """

    forms: Mapping[str, Form]
    n: int
    note: str
    series: pd.DataFrame
    form: str = ""
    estimate: Draws | None = None
    further: Sequence[Control] = ()
    overrides: Sequence[Override] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)
    n_unit: str = "problems"

    def why_missing(self, missing: Sequence[tuple[str, str]]) -> str:
        """In words, why there is no margin; empty if nothing is missing."""
        names = dict.fromkeys(name for _, name in missing)
        return " ".join(
            f"{name[:1].upper()}{name[1:]} cannot be computed: {self.lacking.get(name, NOT_THERE)}."
            for name in names
        )


@dataclass(frozen=True)
class ExtraFigure:
    """A further figure from a claim's series: `stem` names its files, `caption` says what it shows."""

    stem: str
    caption: str
    panel: Panel


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper.

    order: place among the claims; version: counted up by hand when `measure` gives other numbers or the rule changes;
    title: the claim as a question; statement: the claim; caption: what the panel shows; rule: how the verdict is
    reached, fixed before the data are seen; needs: names of `Tables`; uses: names of those that it reads where a run
    has them; modes: whose responses the verdict rests on; unit: of estimate, margin and `smallest_effect`;
    measured: what the forms' number is, in plain words that begin a sentence;
    why_smallest: why no smaller effect would be of interest; rules_out: what each control that decides rules out, by
    its name in the evidence, or what several such names begin with;
    null: the estimate's value where there is no effect. figure: stem of the figure that holds the panel (claims that
    share one are its parts), height: of the panel, in units of a usual one; paper_form: the form (with the name "this
    model") that holds the paper's own statistic, if that is not the estimate; planted: the audit's planted model that
    has this effect, "" if none has.
    """

    order: int
    name: str
    title: str
    statement: str
    caption: str
    rule: str
    needs: frozenset[str]
    uses: frozenset[str] = frozenset()
    modes: frozenset[str] = frozenset(MODES)
    unit: str
    measured: str = ""
    smallest_effect: float
    why_smallest: str
    rules_out: Mapping[str, str]
    measure: Callable[[Tables, Resampling], Measurement]
    panel: Panel
    figure: str
    null: float = 0.0
    version: int = 1
    height: float = 1.0
    extra_figures: tuple[ExtraFigure, ...] = ()
    paper_form: str = ""
    planted: str = ""

    def judge(self, tables: Tables, resample: Resampling, seed: int) -> tuple[Evidence, pd.DataFrame]:
        """The evidence on this claim, and the series its panel draws.

        Raises NotMeasurable if the run lacks a table that the claim needs, or has too little in them.
        """
        if missing := sorted(need for need in self.needs if not tables.has(need)):
            about = (f"{name} ({FILES[name].about})" if name in FILES else name for name in missing)
            raise NotMeasurable(f"it needs {', '.join(about)}, which this run does not have")
        found = self.measure(tables, resample)
        estimate = found.forms[found.form].estimate if found.estimate is None else found.estimate
        assert estimate is not None  # `needs` has what it takes
        decision = decide_by_margin(found.forms, self.null, self.smallest_effect)
        denied_by = ("", decision.strongest if decision.verdict == NOT_SUPPORTED else "")
        override = next((override for override in found.overrides if override.denied_by in denied_by), None)
        deciding = [row for name, form in found.forms.items() for row in form.rows(name, estimate)]
        evidence = Evidence(
            claim=self.name,
            version=self.version,
            statement=self.statement,
            verdict=override.verdict if override else decision.verdict,
            reason=override.reason if override else found.why_missing(decision.missing),
            rule=self.rule,
            form=found.form,
            estimate=float(estimate[0]),
            unit=self.unit,
            interval=interval(estimate),
            n=found.n,
            n_unit=found.n_unit,
            controls=(*deciding, *found.further),
            decision=decision,
            seed=seed,
            note=found.note,
        )
        return evidence, found.series
