"""How much hangs on τ, on the number of extra passes and on β."""

from pathlib import Path

from normprobe.report.figure import HEIGHT, canvas, command, publish
from normprobe.report.method_results import SENSITIVITY, draw_sensitivity, read
from normprobe.runs.tables import Tables

INPUTS = ("methods/sensitivity.parquet",)


def main(run: Path, out: Path) -> None:
    table = read(Tables(run), "sensitivity")
    figure, panels = canvas(panels=table["knob"].nunique(), height=0.6 * HEIGHT)
    draw_sensitivity(panels, table)
    publish(figure, out / "fig_17_sensitivity", SENSITIVITY)


if __name__ == "__main__":
    command(main, __doc__)
