"""One response token by token: shaded by the norm in one layer, the role of each token marked beneath."""

from pathlib import Path

from normprobe.report import heatmap
from normprobe.report.figure import canvas, command, publish
from normprobe.runs.tables import Tables

INPUTS = ("responses/responses.parquet", "traces/tokens.parquet", "traces/model.safetensors")
INCHES_A_LINE = 0.25


def main(run: Path, out: Path) -> None:
    passage = heatmap.choose(Tables(run))
    figure, (panel,) = canvas(width=6.0, height=1.0 + INCHES_A_LINE * heatmap.lines(passage))
    heatmap.draw(panel, passage)
    heatmap.legend(panel, passage)
    publish(figure, out / "fig_06_token_heat_map", heatmap.caption(passage))


if __name__ == "__main__":
    command(main, __doc__)
