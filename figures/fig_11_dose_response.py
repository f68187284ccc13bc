"""Accuracy with high-norm states suppressed by ever smaller factors, beside as many random ones."""

from pathlib import Path

from normprobe.claims.high_norm_is_causal import CLAIM, dose_panel
from normprobe.report.figure import canvas, command, publish
from normprobe.report.findings import Findings

INPUTS = ("evidence/verdicts.json", "evidence/skipped.json", f"evidence/{CLAIM.name}.parquet")
CAPTION = (
    "Accuracy in think while states are shortened to a share of their norm: those above the layer's threshold, and as "
    "many random ones of the same problems. Lines: 95 % intervals. It decides nothing; an effect of the norm should "
    "grow with the dose, and more so than at random tokens."
)


def main(run: Path, out: Path) -> None:
    finding = Findings(run)[CLAIM.name]
    figure, (panel,) = canvas()
    dose_panel(panel, finding.series(), finding.evidence)
    publish(figure, out / "fig_11_dose_response", CAPTION)


if __name__ == "__main__":
    command(main, __doc__)
