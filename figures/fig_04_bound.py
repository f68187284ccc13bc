"""S against the square root of g, with the theorem's two curves."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/two_sided_bound.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["two_sided_bound"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_04_bound", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
