"""Draw the paper's figures from one run's tables: `python figures/make_all.py --run runs/x [--only late_spike]`.

`FIGURES` is the table of all figures. Those of claims are read from the claims; what the others show and say is in
`normprobe.report`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

VERDICTS = ("evidence/verdicts.json", "evidence/skipped.json")


@dataclass(frozen=True)
class PaperFigure:
    """One row of the table: the stem of its files, the claims it shows, the run's files it reads, its drawing."""

    stem: str
    claims: tuple[str, ...]
    inputs: tuple[str, ...]
    drawing: Callable[[Path], Drawing]


def of_claims(stem: str) -> PaperFigure:
    """The figure of all claims that name it."""
    names = tuple(claim.name for claim in CLAIMS if claim.figure == stem)

    def drawing(run: Path) -> Drawing:
        findings = Findings(run)
        return drawing_of([findings[name] for name in names])

    return PaperFigure(stem, names, (*VERDICTS, *(f"evidence/{name}.parquet" for name in names)), drawing)


def of_extra(claim: Claim, extra: ExtraFigure) -> PaperFigure:
    """A further figure from a claim's series."""

    def drawing(run: Path) -> Drawing:
        finding = Findings(run)[claim.name]
        series = finding.series()
        return Drawing(extra.stem, extra.caption, lambda axes: extra.panel(axes[0], series, finding.evidence))

    return PaperFigure(extra.stem, (), (*VERDICTS, f"evidence/{claim.name}.parquet"), drawing)


def of_tables(stem: str, inputs: Sequence[str], draw: Callable[[Tables], Drawing]) -> PaperFigure:
    """A figure from the run's own tables."""
    return PaperFigure(stem, (), tuple(inputs), lambda run: draw(Tables(run)))


def of_margins(run: Path) -> Drawing:
    """Every claim's margin. Raises NothingToDraw where no claim was judged."""
    if not (evidence := read_evidence(run)):
        raise NothingToDraw("no claim was judged")
    return margins(evidence)


TRACES = ("responses/responses.parquet", "traces/tokens.parquet", "traces/model.safetensors")
METHODS = "methods/{}.parquet".format
FIGURES = sorted(
    [
        *(of_claims(stem) for stem in dict.fromkeys(claim.figure for claim in CLAIMS)),
        *(of_extra(claim, extra) for claim in CLAIMS for extra in claim.extra_figures),
        of_tables("fig_06_token_heat_map", TRACES, heatmap.drawing),
        PaperFigure(
            "fig_12_signal_contest",
            (),
            (signal_comparison.FILE,),
            lambda run: signal_comparison.drawing(signal_comparison.read_signals(run)),
        ),
        PaperFigure("fig_13_margins", (), VERDICTS[:1], of_margins),
        PaperFigure(
            "fig_14_null_distributions", (), (*VERDICTS, "audit/audit.json"), null_distributions.drawing
        ),
        of_tables("fig_16_selectors", [METHODS("selection")], method_results.selectors),
        of_tables("fig_17_sensitivity", [METHODS("sensitivity")], method_results.sensitivity),
        of_tables("fig_18_combinations", [METHODS("combinations")], method_results.combinations),
        of_tables("fig_19_failure_modes", [METHODS("treatments")], method_results.failures),
        of_tables("fig_20_methods", ["profile/layer_profile.json"], method_schematic.drawing),
    ],
    key=lambda figure: figure.stem,
)


def make_all(run: Path, out: Path, only: Sequence[str] = ()) -> None:
    """Write every figure (or those named) in order, a line of progress each; what the run lacks costs its figure, and
    the line says so. Raises NormprobeError for a run without evidence and for an unknown name."""
    Findings(run)  # a run without evidence is refused here, before anything is drawn
    known = {name for figure in FIGURES for name in (figure.stem, *figure.claims)}
    if unknown := sorted(set(only) - known):
        raise NormprobeError(
            f"expected names of figures or claims, got {', '.join(unknown)}; choose among {', '.join(sorted(known))}"
        )
    for figure in FIGURES:
        if only and not {figure.stem, *figure.claims} & set(only):
            continue
        begun = time.perf_counter()
        try:
            figure.drawing(run).save(out / figure.stem)
        except NothingToDraw as reason:
            print(f"{figure.stem}: not drawn, {reason}", flush=True)
        else:
            print(f"{figure.stem}: {time.perf_counter() - begun:.1f} s", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run directory, runs/x")
    parser.add_argument("--out", type=Path, help="where the files go (default: figures/ inside the run)")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="claims or stems of figures")
    given = parser.parse_args(argv)
    make_all(given.run, given.out or given.run / "figures", given.only)


if __name__ == "__main__":
    sys.exit(run_main(main))
