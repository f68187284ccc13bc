"""Verdicts of several runs side by side: `python analysis/compare_runs.py RUN RUN …`, as `normprobe compare`."""

import sys

from normprobe.console import run_main
from normprobe.report.compare import main

if __name__ == "__main__":
    sys.exit(run_main(main))
