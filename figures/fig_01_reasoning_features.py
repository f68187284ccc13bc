"""Activation of the reasoning features by layer, with the controls that could explain a late rise away."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/late_spike.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["late_spike"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_01_reasoning_features", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
