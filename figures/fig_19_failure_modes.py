"""What the methods win and lose, and how they lose it."""

from pathlib import Path

from normprobe.claims.tables import Tables
from normprobe.report.figure import HEIGHT, canvas, command, publish
from normprobe.report.method_results import FAILURES, draw_failures, read

INPUTS = ("methods/arms.parquet",)


def main(run: Path, out: Path) -> None:
    table = read(Tables(run), "method_arms")
    figure, (panel,) = canvas(height=1.2 * HEIGHT)
    draw_failures(panel, table)
    publish(figure, out / "fig_19_failure_modes", FAILURES)


if __name__ == "__main__":
    command(main, __doc__)
