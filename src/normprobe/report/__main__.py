"""`normprobe report runs/x`, also `python -m normprobe.report runs/x`: write the report of a finished run again."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from normprobe.console import parse, print_json, run_main
from normprobe.errors import NormprobeError
from normprobe.report.audit_results import Audit, is_audited
from normprobe.report.document import run_document
from normprobe.report.feature_pages import write_pages
from normprobe.report.findings import read_evidence
from normprobe.report.html import write_report
from normprobe.report.table import HOLM, allowed, markdown_table
from normprobe.runs.tables import Tables


@dataclass(frozen=True)
class ReportCommand:
    """Write a finished run's report again."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run directory, such as runs/tiny-thinker"""
    markdown: bool = False
    """print the verdicts, and an audit's results, as Markdown tables (a README's); write nothing"""
    json: bool = False
    """print the verdicts as one JSON document; write nothing"""


def main(argv: list[str] | None = None) -> None:
    """Write `report.html` and, where there are pages on features, `features.html` into the run directory, and print
    their paths; or, for `--markdown` and `--json`, print what was found."""
    given = parse(ReportCommand, argv, "report")
    if given.markdown and given.json:
        raise NormprobeError("expected one form of output, got --markdown and --json; choose one")
    if given.json:
        print_json(run_document(given.run))
    elif given.markdown:
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
