"""The assumptions A1 to A4 beside a random dictionary of the same shape."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/assumptions.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["assumptions"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_05_assumptions", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
