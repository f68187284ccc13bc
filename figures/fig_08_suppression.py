"""Accuracy with high-norm states suppressed, beside matched random ones."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/high_norm_is_causal.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["high_norm_is_causal"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_08_suppression", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
