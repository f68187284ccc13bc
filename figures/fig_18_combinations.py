"""The methods alone and together."""

from pathlib import Path

from normprobe.report.figure import HEIGHT, canvas, command, publish
from normprobe.report.method_results import COMBINATIONS, draw_combinations, read
from normprobe.runs.tables import Tables

INPUTS = ("methods/combinations.parquet",)


def main(run: Path, out: Path) -> None:
    table = read(Tables(run), "combinations")
    figure, (panel,) = canvas(height=1.0 * HEIGHT)
    draw_combinations(panel, table)
    publish(figure, out / "fig_18_combinations", COMBINATIONS)


if __name__ == "__main__":
    command(main, __doc__)
