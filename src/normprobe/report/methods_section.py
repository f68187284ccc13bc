"""The evaluation of the methods in the report: every treatment and regime in numbers, knobs, combinations and
failures."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from normprobe.report import method_results as results
from normprobe.report.figure import HEIGHT, canvas, drawn
from normprobe.report.findings import NothingToDraw
from normprobe.report.page import heading, image, paragraph, table
from normprobe.runs.tables import Tables

ANCHOR = "methods"


def methods_section(tables: Tables) -> Iterator[str]:
    """Tables and figures of `normprobe evaluate`; one sentence for a run without."""
    yield heading("The methods in numbers", ANCHOR)
    if tables.has("tasks"):
        head, rows = results.task_table(tables.tasks)
        yield table(head, [[escape(cell) for cell in row] for row in rows], results.TASKS)
    try:
        treatments = results.read(tables, "method_treatments")
    except NothingToDraw as error:
        yield paragraph(str(error))
        return
    head, rows = results.treatment_table(treatments)
    yield table(head, [[escape(cell) for cell in row] for row in rows], results.TREATMENTS, cards=True)
    head, rows = results.regime_table(tables.sweep, tables.confirmed)
    yield table(head, [[escape(cell) for cell in row] for row in rows], results.REGIMES, cards=True)
    knobs = tables.sensitivity
    yield image(
        drawn(
            canvas(panels=knobs["knob"].nunique(), height=0.6 * HEIGHT),
            lambda axes: results.draw_sensitivity(axes, knobs),
        ),
        "Sensitivity",
        results.SENSITIVITY,
    )
    for name, title, caption, draw in (
        ("selection", "Selectors", results.SELECTORS, results.draw_selectors),
        ("combinations", "Combinations", results.COMBINATIONS, results.draw_combinations),
        ("method_treatments", "Failures", results.FAILURES, results.draw_failures),
    ):
        shown = getattr(tables, name)
        blank = canvas(height=1.3 * HEIGHT)
        yield image(drawn(blank, lambda axes, d=draw, s=shown: d(axes[0], s)), title, caption)
