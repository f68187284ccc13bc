"""AUROC of the norm against the roles of tokens, by layer."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/marks_critical_steps.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["marks_critical_steps"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_07_critical_steps", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
