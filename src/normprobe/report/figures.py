"""The figures of a run, by the stems of their files: those of claims are read from the claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normprobe.claims.claim import Claim, ExtraFigure
from normprobe.claims.registry import CLAIMS
from normprobe.errors import NormprobeError
from normprobe.report import (
    heatmap,
    method_results,
    method_schematic,
    norm_by_domain,
    null_distributions,
    signal_comparison,
)
from normprobe.report.figure import Drawing
from normprobe.report.findings import Findings, drawing_of, read_evidence
from normprobe.report.table import count
from normprobe.report.what_would_change import margins
from normprobe.runs.tables import Tables


def of_claims(stem: str) -> Callable[[Path], Drawing]:
    """The figure of all claims that name it."""

    def drawing(run: Path) -> Drawing:
        findings = Findings(run)
        return drawing_of([findings[claim.name] for claim in CLAIMS if claim.figure == stem])

    return drawing


def of_extra(claim: Claim, extra: ExtraFigure) -> Callable[[Path], Drawing]:
    """A further figure from a claim's series."""

    def drawing(run: Path) -> Drawing:
        finding = Findings(run)[claim.name]
        series = finding.series()
        caption = f"{extra.caption} n = {count(finding.evidence.n)} {finding.evidence.n_unit}."
        return Drawing(claim.title, caption, lambda axes: extra.panel(axes[0], series, finding.evidence))

    return drawing


def of_tables(draw: Callable[[Tables], Drawing]) -> Callable[[Path], Drawing]:
    """A figure from the run's own tables."""
    return lambda run: draw(Tables(run))


FIGURES = {
    **{claim.figure: of_claims(claim.figure) for claim in CLAIMS},
    **{extra.stem: of_extra(claim, extra) for claim in CLAIMS for extra in claim.extra_figures},
    "fig_09_domain_and_difficulty": lambda run: norm_by_domain.drawing(
        Tables(run), Findings(run)["domain_and_difficulty"]
    ),
    "fig_06_token_heat_map": of_tables(heatmap.drawing),
    "fig_12_signal_contest": lambda run: signal_comparison.drawing(signal_comparison.read_signals(run)),
    "fig_13_margins": lambda run: margins(read_evidence(run)),
    "fig_14_null_distributions": null_distributions.drawing,
    "fig_16_selectors": of_tables(method_results.selectors),
    "fig_17_sensitivity": of_tables(method_results.sensitivity),
    "fig_18_combinations": of_tables(method_results.combinations),
    "fig_19_failure_modes": of_tables(method_results.failures),
    "fig_20_methods": of_tables(method_schematic.drawing),
}
"""What draws each figure of a run, by the stem of its files."""


def stem_of(name: str) -> str:
    """The stem of a figure that is named by it, by the part after its number ("norm_by_layer"), or by a claim of its.

    Raises NormprobeError for a name of none.
    """
    if name in FIGURES:
        return name
    stems = {claim.name: claim.figure for claim in CLAIMS}
    stems |= {stem.split("_", 2)[2]: stem for stem in FIGURES}
    if name not in stems:
        raise NormprobeError(
            f"expected names of figures or claims, got {name}; choose among {', '.join(sorted(stems))}"
        )
    return stems[name]
