"""Write docs/figures.md and its images from runs: `make gallery`, `python docs/gallery.py RUN …`.

The page and the images are kept in the repository, since `make docs` has no runs to draw them from.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.report.figure import Drawing
from normprobe.report.figure_text import faults
from normprobe.report.figures import FIGURES
from normprobe.report.findings import NothingToDraw
from normprobe.runs.atomic import atomic_write, atomic_write_text
from normprobe.runs.directory import Run

DOCS = Path(__file__).parent
HEAD = """# Figures

Every figure that normprobe draws, as wide as a column in print (3.3 inches), with its caption and the command to draw
it from a run again: PDF, PNG and the caption as text. Names of claims lead to [their pages](claims/index.md), and
[what was found](results.md) has the numbers. `normprobe figures RUN RUN` draws the figures of claims with a panel per
run, and writes a table of Spearman correlations beside them.

*This page is written by `make gallery` from runs of `normprobe verify`: {runs}.*
"""


def write_gallery(folders: Sequence[Path], docs: Path = DOCS) -> None:
    """Write figures.md and images/figures/RUN/ into `docs`, each image anew, the runs side by side under the names of
    their folders.

    Raises NormprobeError as `Findings`, for two runs of one name, and for a figure whose text is small, cut off or on
    other text; then nothing is written.
    """
    runs = {folder.resolve().name: folder for folder in folders}
    if len(runs) < len(folders) or not runs:
        raise NormprobeError(
            f"expected runs in folders of different names, got {', '.join(map(str, folders)) or 'none'}; "
            'name one or more, as in make gallery RUNS="runs/tiny-thinker runs/smol-thinker"'
        )
    drawn = {stem: _drawn(stem, runs) for stem in sorted(FIGURES)}
    images = docs / "images" / "figures"
    shutil.rmtree(images, ignore_errors=True)
    for name in runs:
        (images / name).mkdir(parents=True)
    parts = [HEAD.format(runs="; ".join(_conditions(name, folder) for name, folder in runs.items()))]
    for stem, by_run in drawn.items():
        parts.append(f"## {stem}\n")
        lacking = {name: drawing for name, drawing in by_run.items() if isinstance(drawing, NothingToDraw)}
        shown = {name: drawing for name, drawing in by_run.items() if isinstance(drawing, Drawing)}
        for name, reason in lacking.items():
            why = str(reason).replace(str(runs[name]), "RUN")
            parts.append(f"Not drawn for {name}: {why}.\n".replace("..", "."))
        if shown:
            cells = [
                f"![{drawing.title}](images/figures/{name}/{stem}.png)" for name, drawing in shown.items()
            ]
            parts.append("\n".join(map(_row, (shown, ["---"] * len(shown), cells))) + "\n")
        for name, drawing in shown.items():
            with atomic_write(images / name / f"{stem}.png") as unfinished:
                unfinished.write_bytes(drawing.small_png())
            parts.append(f"*{name}:* {drawing.caption}\n")
        parts.append(f"Drawn by `normprobe figures RUN --only {stem}`.\n")
    atomic_write_text(docs / "figures.md", "\n".join(parts))


def _drawn(stem: str, runs: Mapping[str, Path]) -> dict[str, Drawing | NothingToDraw]:
    """A figure of each run that has what it shows, or why not. Raises NormprobeError where its text cannot be read."""
    drawn = dict[str, Drawing | NothingToDraw]()
    for name, folder in runs.items():
        try:
            drawn[name] = drawing = FIGURES[stem](folder)
        except NothingToDraw as reason:
            drawn[name] = reason
            continue
        with drawing.drawn() as figure:
            if found := faults(figure):
                raise NormprobeError(
                    f"expected figures whose text can be read, got {stem} of {name}: {'; '.join(found)}; "
                    "mend what draws it"
                )
    return drawn


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _conditions(name: str, folder: Path) -> str:
    """The model of a run, and what was set for it."""
    manifest = Run.load(folder).manifest()
    arguments, model = manifest["arguments"], manifest["identities"]["model"]["name"]
    settings = ", ".join(f"`{setting}` {value}" for setting, value in arguments["given"].items())
    n = arguments["resolved"]["problems"]["n_measure"]
    return f"{name}, {model} on {n} measured problems with {settings or 'no settings of its own'}"


if __name__ == "__main__":
    sys.exit(run_main(lambda _: write_gallery([Path(argument) for argument in sys.argv[1:]])))
