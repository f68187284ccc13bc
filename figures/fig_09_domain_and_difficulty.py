"""How much thinking amplifies the norm, by difficulty and domain."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/domain_and_difficulty.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["domain_and_difficulty"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_09_domain_and_difficulty", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
