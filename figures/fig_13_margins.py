"""Every claim's margin in units of its smallest effect of interest: how far each verdict is from another."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import NothingToDraw, read_evidence
from normprobe.report.what_would_change import MARGINS, draw_margins, margins_height

INPUTS = ("evidence/verdicts.json",)


def main(run: Path, out: Path) -> None:
    evidence = read_evidence(run)
    if not evidence:
        raise NothingToDraw("no claim was judged")
    figure, (panel,) = canvas(height=margins_height(evidence))
    draw_margins(panel, evidence)
    publish(figure, out / "fig_13_margins", MARGINS)


if __name__ == "__main__":
    command(main, __doc__)
