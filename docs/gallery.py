"""Write docs/figures.md and its images from a run: `make gallery`, `python docs/gallery.py RUN`.

The page and the images are kept in the repository, since `make docs` has no run to draw them from.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from normprobe.report.figures import FIGURES
from normprobe.report.findings import NothingToDraw
from normprobe.runs.atomic import atomic_write, atomic_write_text
from normprobe.runs.directory import Run

DOCS = Path(__file__).parent
HEAD = """# Figures

Every figure that normprobe draws, as wide as a column in print (3.3 inches), with its caption and the command to draw
it from a run again: PDF, PNG and the caption as text. They show what a figure looks like: this run is {size}, and its
numbers are not those of [what was found](results.md). Names of claims lead to [their pages](claims/index.md).

*This page is written by `make gallery` from a run of `normprobe verify` on {model} with {settings}.*
"""


def write_gallery(run: Path, docs: Path = DOCS) -> None:
    """Write figures.md and images/figures/ into `docs`, each image anew. Raises NormprobeError as `Findings`."""
    manifest, images = Run.load(run).manifest(), docs / "images" / "figures"
    given = manifest["arguments"]["given"]
    settings = ", ".join(f"`{name}` {value}" for name, value in given.items()) or "no settings of its own"
    n, model = (
        manifest["arguments"]["resolved"]["problems"]["n_measure"],
        manifest["identities"]["model"]["name"],
    )
    parts = [HEAD.format(size=f"one of {model} on {n} problems", model=model, settings=settings)]
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    for stem in sorted(FIGURES):
        parts.append(f"## {stem}\n")
        try:
            drawing = FIGURES[stem](run)
        except NothingToDraw as reason:
            parts.append(f"Not drawn here: {str(reason).replace(str(run), 'RUN')}.\n".replace("..", "."))
        else:
            with atomic_write(images / f"{stem}.png") as unfinished:
                unfinished.write_bytes(drawing.small_png())
            parts.append(f"![{drawing.title}](images/figures/{stem}.png)\n\n{drawing.caption}\n")
        parts.append(f"Drawn by `normprobe figures RUN --only {stem}`.\n")
    atomic_write_text(docs / "figures.md", "\n".join(parts))


if __name__ == "__main__":
    write_gallery(Path(sys.argv[1]))
