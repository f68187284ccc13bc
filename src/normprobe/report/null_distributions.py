"""The null distribution behind each estimate: what random networks give, and where this model lies."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from normprobe.claims.measure.readers import MODEL
from normprobe.report.audit_results import Audit
from normprobe.report.figure import Drawing
from normprobe.report.findings import Findings, NothingToDraw
from normprobe.report.table import span
from normprobe.style import BLUE, GREY

BINS = 30


def drawing(run: Path) -> Drawing:
    """A row per claim. Raises NothingToDraw for a run without an audit, or an audit without null networks."""
    findings = Findings(run)
    shown = rows(Audit.load(run), findings)
    if not shown:
        raise NothingToDraw("the audit has no null networks")

    def draw_rows(panels: list[Any]) -> None:
        for axes, row in zip(panels, shown, strict=True):
            draw(axes, *row)

    networks, n = [len(row[2]) for row in shown], [finding.evidence.n for finding in findings]
    caption = (
        "Estimates of every claim on null networks (grey: random weights, reading what the model wrote) and on this "
        "model (blue line; shaded: 95 % interval over problems). A claim is judged by its margin over its own "
        "controls, not by this distance: the row of the paper's layer-wise ρ shows why. "
        f"n = {span(min(networks), max(networks))} null networks; this model: n = {span(min(n), max(n))} problems, "
        "by claim."
    )
    return Drawing("Null distributions", caption, draw_rows, panels=len(shown), height=0.95)


def rows(audit: Audit, findings: Findings) -> list[tuple[str, str, np.ndarray, float, tuple[float, float]]]:
    """For each claim with a verdict: its title, its unit, the null networks' estimates, this model's and its interval.

    Once more for a claim's `paper_form`: the paper's own statistic, the layer-wise ρ.
    """
    found = []
    for finding in findings:
        evidence = finding.evidence
        nulls = audit.nulls[audit.nulls["claim"] == evidence.claim]
        if nulls.empty:
            continue
        values = nulls["estimate"].dropna().to_numpy(dtype=float)
        found.append((finding.claim.title, evidence.unit, values, evidence.estimate, evidence.interval))
        paper = nulls["layerwise"].dropna().to_numpy(dtype=float)
        form = finding.claim.paper_form
        shown = next((c for c in evidence.controls if form and (c.form, c.name) == (form, MODEL)), None)
        if len(paper) and shown:
            name = "The paper's form of the same: over layers"
            found.append((name, "Spearman ρ over layers", paper, shown.estimate, shown.interval))
    return found


def draw(
    axes: Any, label: str, unit: str, nulls: np.ndarray, estimate: float, interval: tuple[float, float]
) -> None:
    """One row: null networks as a histogram with a rug in grey, this model as a line with its interval in blue."""
    import seaborn

    low, high = min(nulls.min(), estimate), max(nulls.max(), estimate)
    edges = np.linspace(low, high, BINS + 1) if low < high else estimate + np.array([-0.02, 0.02])
    seaborn.histplot(x=nulls, bins=edges, color=GREY, alpha=1.0, linewidth=0, ax=axes)
    seaborn.rugplot(x=nulls, color="black", height=-0.05, linewidth=0.6, clip_on=False, ax=axes)
    axes.axvline(estimate, color=BLUE)
    if np.isfinite(interval).all():
        axes.axvspan(*interval, color=BLUE, alpha=0.25, linewidth=0)
    axes.set_title(textwrap.fill(label, 56), loc="left", fontsize=7)
    axes.set_xlabel(textwrap.fill(unit, 64), fontsize=6.5)
    axes.set_ylabel("")
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=6)  # −0.020 beside −0.015 would overlap in a column
