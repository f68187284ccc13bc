"""Draw the paper's figures from one run's tables: `python figures/make_all.py --run runs/x [--only late_spike]`.

What they show and say is in `normprobe.report.figures`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from normprobe.console import run_main
from normprobe.report.figures import FIGURES, stem_of
from normprobe.report.findings import Findings, NothingToDraw


def make_all(run: Path, out: Path, only: Sequence[str] = ()) -> None:
    """Write every figure (or those named) in order, a line of progress each; what the run lacks costs its figure, and
    the line says so. Raises NormprobeError for a run without evidence and for an unknown name."""
    Findings(run)  # a run without evidence is refused here, before anything is drawn
    for stem in sorted({stem_of(name) for name in only} or FIGURES):
        begun = time.perf_counter()
        try:
            FIGURES[stem](run).save(out / stem)
        except NothingToDraw as reason:
            print(f"{stem}: not drawn, {reason}", flush=True)
        else:
            print(f"{stem}: {time.perf_counter() - begun:.1f} s", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run directory, runs/x")
    parser.add_argument("--out", type=Path, help="where the files go (default: figures/ inside the run)")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="claims or stems of figures")
    given = parser.parse_args(argv)
    make_all(given.run, given.out or given.run / "figures", given.only)


if __name__ == "__main__":
    sys.exit(run_main(main))
