"""Early surprisal of a token and the norm of the state that predicts it, by layer."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "evidence/hard_tokens_grow_norm.parquet")


def main(run: Path, out: Path) -> None:
    finding = Findings(run)["hard_tokens_grow_norm"]
    figure, (panel,) = canvas()
    finding.draw(panel)
    publish(figure, out / "fig_10_hard_tokens", finding.caption)


if __name__ == "__main__":
    command(main, __doc__)
