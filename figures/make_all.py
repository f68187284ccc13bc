"""Draw the paper's figures from one run's tables: `python figures/make_all.py --run runs/x [--only late_spike]`.

What they show and say is in `normprobe.report.figures`; `normprobe figures` draws the same.
"""

import argparse
import sys
from pathlib import Path

from normprobe.console import run_main
from normprobe.report.draw_figures import draw_figures, show


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run directory, runs/x")
    parser.add_argument("--out", type=Path, help="where the files go (default: figures/ inside the run)")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="claims or stems of figures")
    given = parser.parse_args(argv)
    show(draw_figures([given.run], given.out, given.only))


if __name__ == "__main__":
    sys.exit(run_main(main))
