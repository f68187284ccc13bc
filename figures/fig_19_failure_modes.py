"""What the methods win and lose, and how they lose it."""

from pathlib import Path

from normprobe.report.figure import HEIGHT, canvas, command, publish
from normprobe.report.method_results import FAILURES, draw_failures, read
from normprobe.runs.tables import Tables

INPUTS = ("methods/treatments.parquet",)


def main(run: Path, out: Path) -> None:
    table = read(Tables(run), "method_treatments")
    figure, (panel,) = canvas(height=1.2 * HEIGHT)
    draw_failures(panel, table)
    publish(figure, out / "fig_19_failure_modes", FAILURES)


if __name__ == "__main__":
    command(main, __doc__)
