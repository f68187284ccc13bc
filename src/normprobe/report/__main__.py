"""`normprobe report runs/x`, also `python -m normprobe.report runs/x`: write the report of a finished run again."""

import argparse
import sys
from pathlib import Path

from normprobe.console import run_main
from normprobe.report.audit_results import Audit, is_audited
from normprobe.report.feature_pages import write_pages
from normprobe.report.findings import read_evidence
from normprobe.report.html import write_report
from normprobe.report.table import HOLM, allowed, markdown_table
from normprobe.runs.tables import Tables


def main(argv: list[str] | None = None) -> None:
    """Write `report.html` and, where there are pages on features, `features.html` into the run directory, and print
    their paths; or, for `--markdown`, print the tables."""
    parser = argparse.ArgumentParser(
        prog="normprobe report", description="Write a finished run's report again."
    )
    parser.add_argument("run", type=Path, help="a run directory, such as runs/tiny-thinker")
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the verdicts, and an audit's results, as Markdown tables (a README's); write nothing",
    )
    given = parser.parse_args(argv)
    if given.markdown:
        evidence = read_evidence(given.run)
        print("\n\n".join([markdown_table(evidence), HOLM, *allowed(evidence)]))
        if is_audited(given.run):
            print(f"\n{Audit.load(given.run).markdown(evidence)}")
    else:
        print(write_report(given.run))
        if (tables := Tables(given.run)).has("feature_pages"):
            print(write_pages(tables))


if __name__ == "__main__":
    sys.exit(run_main(main))
