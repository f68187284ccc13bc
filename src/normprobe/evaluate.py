"""`normprobe evaluate runs/x`: do the three methods improve accuracy, at equal compute and on held-out problems?

With --tasks, the paper's settings and their baselines on tasks of lm-evaluation-harness instead of the testbed's.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import pandas as pd

from normprobe.claims.registry import evaluate_all
from normprobe.config import run_settings
from normprobe.console import run_main
from normprobe.experiments.method_parts import MethodInputs, Plan
from normprobe.experiments.methods import QUICK, fill_methods
from normprobe.layer_profile import LayerProfile
from normprobe.problems import open_source
from normprobe.report.findings import read_evidence
from normprobe.report.html import write_report
from normprobe.report.method_results import task_table
from normprobe.report.table import verdict_table
from normprobe.runs.directory import Run
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.evaluate` and `normprobe evaluate`."""
    parser = argparse.ArgumentParser(
        prog="normprobe evaluate", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("run", type=Path, help="a finished run directory, such as runs/tiny-thinker")
    parser.add_argument("--tune", type=int, help=f"problems of the sweep, per regime ({Plan.tune})")
    parser.add_argument("--test", type=int, help=f"held-out problems ({Plan.test})")
    parser.add_argument("--samples", type=int, help=f"samples per problem to select among ({Plan.samples})")
    parser.add_argument("--seed", type=int, help=f"of every draw ({Plan.seed})")
    parser.add_argument("--quick", action="store_true", help="shows that everything works, too small to tell")
    parser.add_argument("--processes", type=int, help="worker processes (one per core)")
    parser.add_argument("--tasks", help="tasks of lm-evaluation-harness, separated by commas")
    parser.add_argument("--limit", type=int, help="documents per task (all)")
    parser.add_argument("--include-path", type=Path, help="a folder of further task files")
    arguments = parser.parse_args(argv)
    if arguments.tasks is not None:
        _tasks(arguments)
        return
    fields = {field.name for field in dataclasses.fields(Plan)}
    given = {key: value for key, value in vars(arguments).items() if key in fields and value is not None}
    plan = dataclasses.replace(QUICK if arguments.quick else Plan(), **given)
    _fill(Run.load(arguments.run), plan, arguments.processes)
    # All claims again, since the verdicts stand in one file; the others' numbers do not change.
    run = Run.load(arguments.run)
    seed = run.manifest()["arguments"]["resolved"]["seed"]
    evaluate_all(Tables(run.path), seed, run["evidence"])
    print(verdict_table(read_evidence(run.path)))
    print(f"report: {write_report(run.path)}")


def _fill(run: Run, plan: Plan, processes: int | None) -> None:
    """Fill the stage methods/ of a finished run, unless it is complete with this plan and layer profile."""
    run["evidence"]
    profile = LayerProfile.load(run.path / FILES["profile"].path)
    config = {"plan": dataclasses.asdict(plan), "profile": dataclasses.asdict(profile)}
    if not run.stage_complete("methods", config):
        settings = run_settings(run)
        source = open_source(settings.problem_source)
        inputs = MethodInputs(
            settings,
            profile,
            source.name,
            run.path / FILES["problems"].path,
            run.path / FILES["responses"].path,
            settings.max_new_tokens or source.max_new_tokens,
            plan,
        )
        with run.stage("methods", config) as folder:
            fill_methods(folder, inputs, processes=processes)


def _tasks(arguments: argparse.Namespace) -> None:
    from normprobe.experiments.task_treatments import run_tasks  # lm-eval is an extra

    names = [name for name in arguments.tasks.split(",") if name]
    seed = Plan.seed if arguments.seed is None else arguments.seed
    table = run_tasks(
        arguments.run, names, limit=arguments.limit, include_path=arguments.include_path, seed=seed
    )
    config = {"tasks": names, "limit": arguments.limit, "seed": seed}
    with Run.load(arguments.run).stage("tasks", config) as folder:
        FILES["tasks"].write(folder, table)
    head, rows = task_table(table)
    print(pd.DataFrame(rows, columns=list(head)).to_string(index=False))


if __name__ == "__main__":
    sys.exit(run_main(main))
