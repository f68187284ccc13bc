"""`normprobe audit runs/x`: would the verdicts fail where they should, and succeed where an effect is there?"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from normprobe.audit.study import QUICK, Plan, run_audit
from normprobe.console import run_main
from normprobe.report.audit import Audit
from normprobe.report.html import write_report


def main(argv: list[str] | None = None) -> int:
    """Command line of `python -m normprobe.audit` and `normprobe audit`; 1 if the audit fails, with --strict."""
    parser = argparse.ArgumentParser(
        prog="normprobe audit", description=__doc__.partition(": ")[2] if __doc__ else None
    )
    parser.add_argument("run", type=Path, help="a finished run directory, such as runs/tiny-thinker")
    parser.add_argument("--nulls", type=int, help=f"random networks with random dictionaries ({Plan.nulls})")
    parser.add_argument("--trained", type=int, help=f"random networks with trained ones ({Plan.trained})")
    parser.add_argument("--samples", type=int, help=f"samples for the coverage of intervals ({Plan.samples})")
    parser.add_argument("--seed", type=int, help=f"of every network and draw ({Plan.seed})")
    parser.add_argument("--quick", action="store_true", help="shows that everything works, too small to tell")
    parser.add_argument("--processes", type=int, help="worker processes (one per core)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if the audit fails")
    arguments = parser.parse_args(argv)
    fields = {field.name for field in dataclasses.fields(Plan)}
    given = {key: value for key, value in vars(arguments).items() if key in fields and value is not None}
    plan = dataclasses.replace(QUICK if arguments.quick else Plan(), **given)
    run_audit(arguments.run, plan, processes=arguments.processes)
    audit = Audit.load(arguments.run)
    print(audit.text())
    print(f"report: {write_report(arguments.run)}")
    return 1 if arguments.strict and audit.faults() else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
