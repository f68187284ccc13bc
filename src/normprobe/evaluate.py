"""`normprobe evaluate runs/x`: do the three methods improve accuracy, at equal compute and on held-out problems?"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from normprobe.claims.registry import evaluate_all
from normprobe.claims.tables import Tables
from normprobe.console import run_main
from normprobe.evaluation.method_parts import Plan
from normprobe.evaluation.methods import QUICK, run_evaluation
from normprobe.report.findings import read_evidence
from normprobe.report.html import write_report
from normprobe.report.table import verdict_table
from normprobe.runs import Run


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.evaluate` and `normprobe evaluate`."""
    parser = argparse.ArgumentParser(
        prog="normprobe evaluate", description=__doc__.partition(": ")[2] if __doc__ else None
    )
    parser.add_argument("run", type=Path, help="a finished run directory, such as runs/tiny-thinker")
    parser.add_argument("--tune", type=int, help=f"problems of the sweep, per regime ({Plan.tune})")
    parser.add_argument("--test", type=int, help=f"held-out problems ({Plan.test})")
    parser.add_argument("--samples", type=int, help=f"samples per problem to select among ({Plan.samples})")
    parser.add_argument("--seed", type=int, help=f"of every draw ({Plan.seed})")
    parser.add_argument("--quick", action="store_true", help="shows that everything works, too small to tell")
    parser.add_argument("--processes", type=int, help="worker processes (one per core)")
    arguments = parser.parse_args(argv)
    fields = {field.name for field in dataclasses.fields(Plan)}
    given = {key: value for key, value in vars(arguments).items() if key in fields and value is not None}
    plan = dataclasses.replace(QUICK if arguments.quick else Plan(), **given)
    run_evaluation(arguments.run, plan, processes=arguments.processes)
    # All claims again, since the verdicts stand in one file; the others' numbers do not change.
    run = Run.load(arguments.run)
    seed = run.manifest()["arguments"]["resolved"]["seed"]
    evaluate_all(Tables(run.path), seed, run["evidence"])
    print(verdict_table(read_evidence(run.path)))
    print(f"report: {write_report(run.path)}")


if __name__ == "__main__":
    sys.exit(run_main(main))
