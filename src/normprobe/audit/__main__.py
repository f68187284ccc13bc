"""`normprobe audit runs/x`: would the verdicts fail where they should, and succeed where an effect is there?"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from normprobe.audit.study import QUICK, AuditInputs, Plan, fill_audit
from normprobe.config import run_settings
from normprobe.console import run_main
from normprobe.report.audit_results import Audit
from normprobe.report.html import write_report
from normprobe.runs.directory import Run


def audit_run(path: Path, plan: Plan, *, processes: int | None = None, progress: bool = True) -> None:
    """Fill the stage audit/ of a finished run, unless it is complete with this plan and these verdicts.

    Raises NormprobeError if the run is not finished or not one of `normprobe verify`.
    """
    from normprobe.saes.stages import shape_of

    run = Run.load(path)
    for stage in ("traces", "saes", "reductions", "evidence"):
        run[stage]
    evidence = json.loads((run["evidence"] / "stage.json").read_text())["hash"]
    config = {"plan": dataclasses.asdict(plan), "evidence": evidence}
    if not run.stage_complete("audit", config):
        width, k = shape_of(run["saes"])
        inputs = AuditInputs(run.path, run_settings(run), width, k, plan)
        with run.stage("audit", config) as folder:
            fill_audit(folder, inputs, processes=processes, progress=progress)


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
    audit_run(arguments.run, plan, processes=arguments.processes)
    audit = Audit.load(arguments.run)
    print(audit.text())
    print(f"report: {write_report(arguments.run)}")
    return 1 if arguments.strict and audit.faults() else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
