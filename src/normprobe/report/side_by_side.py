"""A figure of several runs: the panel of each beneath the others, drawn as in the run's own figure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from normprobe.claims.claim import Claim, Panel
from normprobe.claims.registry import CLAIMS
from normprobe.report.figure import HEIGHT, LETTERS, Drawing
from normprobe.report.findings import Finding, Findings, NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Part = tuple[Claim, str, Panel]
"""What one panel of a figure shows: a claim's series, the panel's caption, and what draws it."""


def _parts(stem: str) -> list[_Part]:
    """Of a figure of claims; none of another figure."""
    own = [(claim, claim.caption, claim.panel) for claim in CLAIMS if claim.figure == stem]
    return own + [
        (claim, extra.caption, extra.panel)
        for claim in CLAIMS
        for extra in claim.extra_figures
        if extra.stem == stem
    ]


def drawing(stem: str, runs: Mapping[str, Path]) -> Drawing:
    """The figure of those runs that have what it shows; what the others lack stands in the caption.

    runs: by the names that title their panels. Raises NothingToDraw for a figure that shows one run alone, and where
    fewer than two runs have what it shows; NormprobeError as `Findings`.
    """
    parts = _parts(stem)
    if not parts:
        raise NothingToDraw(f"it shows one run; normprobe figures RUN --only {stem} draws it")
    found: dict[str, Findings] = {}
    lacking: dict[str, str] = {}
    for name, run in runs.items():
        try:
            findings = Findings(run)
            _ = [findings[claim.name] for claim, _, _ in parts]
        except NothingToDraw as reason:
            lacking[name] = str(reason).rstrip(".")
        else:
            found[name] = findings
    if len(found) < 2:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise NothingToDraw(f"fewer than two of the runs have what it shows ({reasons})")
    shown = [
        (draw, name, caption, findings[claim.name])
        for claim, caption, draw in parts
        for name, findings in found.items()
    ]

    def draw_all(panels: Sequence[Axes]) -> None:
        for axes, (draw, name, _, finding) in zip(panels, shown, strict=True):
            draw(axes, finding.series(), finding.evidence)
            axes.set_title(textwrap.fill(name, 18))
        for i in range(len(parts)):
            _one_legend(panels[i * len(found) : (i + 1) * len(found)])

    title = " ".join(dict.fromkeys(claim.title for claim, _, _ in parts))
    lines = [_caption(shown[i : i + len(found)], i) for i in range(0, len(shown), len(found))]
    lines += [f"Not drawn for {name}: {reason}." for name, reason in lacking.items()]
    # Two claims' panels of two runs are a page; those of one claim have the room that they have in a run's own figure.
    height = HEIGHT * (parts[0][0].height if len(parts) == 1 else 0.9)
    return Drawing(title, " ".join(lines), draw_all, panels=len(shown), height=height)


def _caption(shown: Sequence[tuple[Panel, str, str, Finding]], first: int) -> str:
    """What the panels of one part show, then the number and the verdict of each run; first: the place of its letter."""
    of_runs = (
        f"({letter}) {name}: {finding.judged}"
        for letter, (_, name, _, finding) in zip(LETTERS[first:], shown, strict=False)
    )
    return " ".join([shown[0][2], *of_runs])


def _one_legend(panels: Sequence[Axes]) -> None:
    """Keep the legend of the last panel alone where all have the same."""

    def names(axes: Axes) -> list[str]:
        legend = axes.get_legend()
        return [text.get_text() for text in legend.get_texts()] if legend else []

    if all(names(axes) == names(panels[-1]) for axes in panels):
        for axes in panels[:-1]:
            if legend := axes.get_legend():
                legend.remove()
