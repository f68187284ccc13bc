"""`normprobe evaluate runs/x`: do the three methods improve accuracy, at equal compute and on held-out problems?"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from normprobe.console import run_main
from normprobe.evaluation.method_parts import Plan
from normprobe.evaluation.methods import QUICK, run_evaluation


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.evaluation` and `normprobe evaluate`."""
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
    print(run_evaluation(arguments.run, plan, processes=arguments.processes))


if __name__ == "__main__":
    sys.exit(run_main(main))
