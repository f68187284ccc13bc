"""Verdicts of several runs side by side: `python analysis/compare_runs.py runs/a runs/b [--out comparison.csv]`.

Model sizes, paradigms, checkpoints and methods are compared as runs: directories in, one tidy table out.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.report.findings import read_evidence
from normprobe.report.table import marked, with_interval
from normprobe.runs.atomic import atomic_write_text, refusing_disk_errors
from normprobe.runs.directory import Run

ESTIMATE = "estimate"
COLUMNS = ["run", "model", "seed", "claim", "verdict", "allowed"]
COLUMNS += ["quantity", "form", "value", "low", "high", "unit", "n", "n_unit"]


def compare(runs: list[Path]) -> pd.DataFrame:
    """One row per run, claim and quantity: the claim's own estimate (`ESTIMATE`) and each of its controls by label.

    Columns: `COLUMNS`. allowed: failed conditions that were allowed; low and high: the 95 % interval, NaN where nothing
    could be computed. Raises NormprobeError for a run without readable evidence, and for two runs of one name.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise NormprobeError(
            f"expected runs of different names, got {', '.join(names)}; rename one directory"
        )
    rows = [row for run, name in zip(runs, names, strict=True) for row in _rows(run, name)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(path: Path, name: str) -> Iterator[tuple[object, ...]]:
    evidence, manifest = read_evidence(path), Run.load(path).manifest()
    model = manifest["identities"].get("model", {}).get("name")
    for item in evidence:
        for quantity, measured in (
            (ESTIMATE, item),
            *((control.label, control) for control in item.controls),
        ):
            shared = name, model, item.seed, item.claim, item.verdict, item.allowed
            number = quantity, measured.form, measured.estimate, *measured.interval
            yield *shared, *number, item.unit, item.n, item.n_unit


def side_by_side(table: pd.DataFrame) -> str:
    """Claims down, runs across: verdict, estimate with its interval. A claim that a run did not judge shows a dash."""
    estimates = table[table["quantity"] == ESTIMATE]
    cells = [
        f"{marked(row['verdict'], row['allowed'])} {with_interval(row['value'], (row['low'], row['high']))}"
        for row in estimates.to_dict("records")
    ]
    wide = estimates.assign(cell=cells).pivot(index="claim", columns="run", values="cell").fillna("–")
    return wide.reindex(index=estimates["claim"].unique(), columns=estimates["run"].unique()).to_string()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--out", type=Path, help="also write the tidy table here, as CSV")
    given = parser.parse_args(argv)
    table = compare(given.runs)
    print(side_by_side(table))
    if given.out:
        with refusing_disk_errors(given.out.parent):
            atomic_write_text(given.out, table.to_csv(index=False))


if __name__ == "__main__":
    sys.exit(run_main(main))
