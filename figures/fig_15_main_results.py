"""Accuracy that ALRR, ERSS and LRS gain, beside other uses of the same compute."""

from pathlib import Path

from normprobe.report.figure import HEIGHT, canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/methods_help.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["methods_help"]
    figure, (panel,) = canvas(height=1.3 * HEIGHT)
    finding.draw(panel)
    publish(figure, out / "fig_15_main_results", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
