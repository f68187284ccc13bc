"""`normprobe report runs/x`, also `python -m normprobe.report runs/x`: write the report of a finished run again."""

import argparse
import sys
from pathlib import Path

from normprobe.console import run_main
from normprobe.report.html import write_report


def main(argv: list[str] | None = None) -> None:
    """Write `report.html` into the run directory and print its path."""
    parser = argparse.ArgumentParser(
        prog="normprobe report", description="Write a finished run's report again."
    )
    parser.add_argument("run", type=Path, help="a run directory, such as runs/tiny-thinker")
    print(write_report(parser.parse_args(argv).run))


if __name__ == "__main__":
    sys.exit(run_main(main))
