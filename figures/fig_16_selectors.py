"""Which score chooses the right sample: the norm's, or those that read no norm?"""

from pathlib import Path

from normprobe.report.figure import HEIGHT, canvas, command, publish
from normprobe.report.method_results import SELECTORS, draw_selectors, read
from normprobe.runs.tables import Tables

INPUTS = ("methods/selection.parquet",)


def main(run: Path, out: Path) -> None:
    table = read(Tables(run), "selection")
    figure, (panel,) = canvas(height=1.4 * HEIGHT)
    draw_selectors(panel, table)
    publish(figure, out / "fig_16_selectors", SELECTORS)


if __name__ == "__main__":
    command(main, __doc__)
