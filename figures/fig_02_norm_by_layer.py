"""The norm by layer in each mode, on whole responses and on identical answer tokens."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/thinking_norm_is_higher.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["thinking_norm_is_higher"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_02_norm_by_layer", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
