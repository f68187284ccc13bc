"""What random networks give for every estimate, and where this model lies."""

from pathlib import Path

from normprobe.report.audit import Audit
from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings, NothingToDraw
from normprobe.report.null_distributions import draw, rows

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", "audit/audit.json")


def main(run: Path, out: Path) -> None:
    if not (run / "audit").is_dir():
        raise NothingToDraw(f"the run was not audited; `normprobe audit {run}` does it")
    shown = rows(Audit.load(run), Findings(run))
    if not shown:
        raise NothingToDraw("the audit has no null networks")
    figure, panels = canvas(panels=len(shown), height=0.95)
    for axes, row in zip(panels, shown, strict=True):
        draw(axes, *row)
    caption = (
        "Estimates of every claim on null networks (grey: random weights, reading what the model wrote) and on this "
        "model (blue line; shaded: 95 % interval over problems). A claim is judged by its margin over its own "
        "controls, not by this distance: the row of the paper's layer-wise ρ shows why."
    )
    publish(figure, out / "fig_14_null_distributions", caption)


if __name__ == "__main__":
    command(main, __doc__)
