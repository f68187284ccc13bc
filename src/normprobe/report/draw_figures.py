"""`normprobe figures RUN`: draw the figures of a finished run again, as PDF and PNG with a caption each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from normprobe.console import parse, print_json, run_main
from normprobe.report.figures import FIGURES, stem_of
from normprobe.report.findings import Findings, NothingToDraw
from normprobe.settings import optional


@dataclass(frozen=True)
class FiguresCommand:
    """Draw a finished run's figures again: NAME.pdf, NAME.png and the caption as NAME.txt."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run directory, such as runs/tiny-thinker"""
    only: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """claims or figures, as in late_spike norm_by_layer fig_13_margins (all)"""
    out: Annotated[Path | None, optional(metavar="DIR")] = None
    """where the files go (figures/ inside the run)"""
    json: bool = False
    """print one JSON document instead of a line per figure"""


def draw_figures(run: Path, out: Path | None = None, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Write every figure, or those named, in order, and yield a row for each.

    out: the folder; None: figures/ inside the run. A row: `figure`, `pdf` and `png` (paths), `caption`, `seconds`, and
    `not_drawn`: None, or what the run lacks for it, in which case the others are None.
    Raises NormprobeError for a run without evidence or an unknown name, before anything is drawn, and if a file cannot
    be written.
    """
    folder = run / "figures" if out is None else out
    Findings(run)
    for stem in sorted({stem_of(name) for name in only} or FIGURES):
        row, begun = dict.fromkeys(("pdf", "png", "caption", "seconds", "not_drawn")), time.perf_counter()
        try:
            drawing = FIGURES[stem](run)
            drawing.save(folder / stem)
        except NothingToDraw as reason:
            row |= {"not_drawn": str(reason)}
        else:
            row |= {kind: str(folder / f"{stem}.{kind}") for kind in ("pdf", "png")}
            row |= {"caption": drawing.caption, "seconds": round(time.perf_counter() - begun, 1)}
        yield {"figure": stem, **row}


def show(rows: Iterator[dict[str, Any]]) -> None:
    """Print a line for each figure, as soon as it is there."""
    for row in rows:
        drawn = f"{row['png']} and .pdf, .txt: {row['seconds']} s"
        print(f"{row['figure']}: not drawn, {row['not_drawn']}" if row["not_drawn"] else drawn, flush=True)


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe figures`."""
    command = parse(FiguresCommand, argv, "figures")
    rows = draw_figures(command.run, command.out, command.only)
    if command.json:
        print_json({"run": str(command.run), "figures": list(rows)})
    else:
        show(rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
