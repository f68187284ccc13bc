"""`normprobe figures RUN …`: the figures of a finished run again, or of several side by side: PDF, PNG and caption."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from normprobe.console import parse, print_json, run_main
from normprobe.report import correlation_table, side_by_side
from normprobe.report.compare import by_name
from normprobe.report.figures import FIGURES, stem_of
from normprobe.report.findings import Findings, NothingToDraw
from normprobe.report.table import markdown
from normprobe.runs.atomic import atomic_write_text, refusing_disk_errors
from normprobe.settings import optional

TABLE = "table_spearman"
"""The stem of the table that goes with `CORRELATIONS` of several runs."""
CORRELATIONS = stem_of("norm_tracks_features")


@dataclass(frozen=True)
class FiguresCommand:
    """Draw a finished run's figures again, or those of several runs side by side: NAME.pdf, NAME.png and the caption as
    NAME.txt."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """run directories, such as runs/tiny-thinker; of several, each figure has a panel per run"""
    only: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """claims or figures, as in late_spike norm_by_layer fig_13_margins (all)"""
    out: Annotated[Path | None, optional(metavar="DIR")] = None
    """where the files go (figures/ inside the run; of several runs, compared/ next to the first)"""
    json: bool = False
    """print one JSON document instead of a line per figure"""


def draw_figures(
    runs: Sequence[Path], out: Path | None = None, only: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Write every figure, or those named, in order, and yield a row for each.

    runs: of several, the figures of `side_by_side`, and with `CORRELATIONS` its `TABLE` as .csv and .md.
    out: the folder; None: figures/ inside the run, or compared/ next to the first of several. A row: `figure`, `pdf`
    and `png` (paths), `caption`, `seconds`, and `not_drawn`: None, or what the run lacks for it, in which case the
    others are None. Raises NormprobeError for a run without evidence, two of one name or an unknown name, before
    anything is drawn, and if a file cannot be written.
    """
    named = by_name(runs)
    folder = (runs[0] / "figures" if len(runs) == 1 else runs[0].parent / "compared") if out is None else out
    for run in runs:
        Findings(run)
    for stem in sorted({stem_of(name) for name in only} or FIGURES):
        row, begun = dict.fromkeys(("pdf", "png", "caption", "seconds", "not_drawn")), time.perf_counter()
        try:
            drawing = FIGURES[stem](runs[0]) if len(runs) == 1 else side_by_side.drawing(stem, named)
            drawing.save(folder / stem)
        except NothingToDraw as reason:
            row |= {"not_drawn": str(reason)}
        else:
            row |= {kind: str(folder / f"{stem}.{kind}") for kind in ("pdf", "png")}
            row |= {"caption": drawing.caption, "seconds": round(time.perf_counter() - begun, 1)}
            if len(runs) > 1 and stem == CORRELATIONS:
                _write_table(named, folder)
        yield {"figure": stem, **row}


def _write_table(runs: Mapping[str, Path], folder: Path) -> None:
    table = correlation_table.correlations(runs)
    with refusing_disk_errors(folder):
        atomic_write_text(folder / f"{TABLE}.csv", table.to_csv(index=False))
        atomic_write_text(folder / f"{TABLE}.md", f"{markdown(*correlation_table.side_by_side(table))}\n")


def show(rows: Iterator[dict[str, Any]]) -> None:
    """Print a line for each figure, as soon as it is there."""
    for row in rows:
        drawn = f"{row['png']} and .pdf, .txt: {row['seconds']} s"
        print(f"{row['figure']}: not drawn, {row['not_drawn']}" if row["not_drawn"] else drawn, flush=True)


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe figures`."""
    command = parse(FiguresCommand, argv, "figures")
    rows = draw_figures(command.runs, command.out, command.only)
    if command.json:
        print_json({"runs": [str(run) for run in command.runs], "figures": list(rows)})
    else:
        show(rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
