"""The norm beside every other signal: who tells the reasoning features, computed tokens and correct answers?"""

from pathlib import Path

from normprobe.report import signals
from normprobe.report.figure import command, publish, row_canvas

INPUTS = (signals.FILE,)


def main(run: Path, out: Path) -> None:
    compared = signals.read_signals(run)
    figure, panels = row_canvas(compared["target"].nunique())
    signals.draw_signals(panels, compared)
    publish(figure, out / "fig_12_signal_contest", signals.CAPTION)


if __name__ == "__main__":
    command(main, __doc__)
