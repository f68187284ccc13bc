"""The norm's correlation with reasoning features, and those of the three entropies, with intervals and null models."""

from pathlib import Path

from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

CLAIMS = ("norm_tracks_features", "entropies_do_not")
INPUTS = (
    "evidence/verdicts.json",
    "evidence/skipped.json",
    *(f"evidence/{claim}.parquet" for claim in CLAIMS),
)


def main(run: Path, out: Path) -> None:
    findings = Findings(run)
    pair = [findings[claim] for claim in CLAIMS]
    figure, panels = canvas(panels=2)
    for finding, panel in zip(pair, panels, strict=True):
        finding.draw(panel)
    letters = (f"({letter}) {finding.caption}" for letter, finding in zip("ab", pair, strict=True))
    publish(figure, out / "fig_03_signals", " ".join(letters))


if __name__ == "__main__":
    command(main, __doc__)
