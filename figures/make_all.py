"""Draw the paper's figures from one run's tables: `python figures/make_all.py --run runs/x [--only late_spike]`.

`FIGURES` is the table of all figures. Those of claims are read from the claims; what the others show and say is in
`normprobe.report`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from normprobe.claims.claim import Claim, ExtraFigure
from normprobe.claims.registry import CLAIMS
from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.report import heatmap, method_results, method_schematic, null_distributions, signal_comparison
from normprobe.report.figure import Drawing
from normprobe.report.findings import Findings, NothingToDraw, drawing_of, read_evidence
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
        return Drawing(extra.stem, extra.caption, lambda axes: extra.panel(axes[0], series, finding.evidence))

    return drawing


def of_tables(draw: Callable[[Tables], Drawing]) -> Callable[[Path], Drawing]:
    """A figure from the run's own tables."""
    return lambda run: draw(Tables(run))


FIGURES = {
    **{claim.figure: of_claims(claim.figure) for claim in CLAIMS},
    **{extra.stem: of_extra(claim, extra) for claim in CLAIMS for extra in claim.extra_figures},
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


def make_all(run: Path, out: Path, only: Sequence[str] = ()) -> None:
    """Write every figure (or those named) in order, a line of progress each; what the run lacks costs its figure, and
    the line says so. Raises NormprobeError for a run without evidence and for an unknown name."""
    Findings(run)  # a run without evidence is refused here, before anything is drawn
    stems = {stem: stem for stem in FIGURES} | {claim.name: claim.figure for claim in CLAIMS}
    if unknown := sorted(set(only) - set(stems)):
        raise NormprobeError(
            f"expected names of figures or claims, got {', '.join(unknown)}; choose among {', '.join(sorted(stems))}"
        )
    for stem in sorted({stems[name] for name in only} or FIGURES):
        begun = time.perf_counter()
        try:
            FIGURES[stem](run).save(out / stem)
        except NothingToDraw as reason:
            print(f"{stem}: not drawn, {reason}", flush=True)
        else:
            print(f"{stem}: {time.perf_counter() - begun:.1f} s", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run directory, runs/x")
    parser.add_argument("--out", type=Path, help="where the files go (default: figures/ inside the run)")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="claims or stems of figures")
    given = parser.parse_args(argv)
    make_all(given.run, given.out or given.run / "figures", given.only)


if __name__ == "__main__":
    sys.exit(run_main(main))
