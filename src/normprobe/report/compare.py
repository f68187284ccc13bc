"""`normprobe compare RUN RUN …`: verdicts, estimates and margins of several runs side by side.

Model sizes, paradigms, checkpoints and methods are compared as runs: directories in, one tidy table out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
from tyro.conf import Positional

from normprobe.console import parse, print_json, run_main
from normprobe.errors import NormprobeError
from normprobe.report.document import records
from normprobe.report.findings import read_evidence
from normprobe.report.table import Cells, footnotes, markdown, marked, with_interval
from normprobe.runs.atomic import atomic_write_text, refusing_disk_errors
from normprobe.runs.directory import Run
from normprobe.settings import optional

ESTIMATE, MARGIN = "estimate", "margin"
COLUMNS = ["run", "model", "n_layers", "d_model", "seed", "claim", "version", "verdict", "allowed"]
COLUMNS += ["quantity", "form", "value", "low", "high", "unit", "n", "n_unit"]


@dataclass(frozen=True)
class CompareCommand:
    """Print verdicts, estimates and margins of several runs side by side."""

    runs: Annotated[Positional[tuple[Path, ...]], optional(metavar="RUN")]
    """run directories, of one version of each claim"""
    markdown: bool = False
    """as a Markdown table"""
    json: bool = False
    """as one JSON document: a row per run, claim and quantity, controls included"""
    out: Annotated[Path | None, optional(metavar="FILE")] = None
    """also write these rows here, as CSV"""


def by_name(runs: Sequence[Path]) -> dict[str, Path]:
    """Run directories by their names. Raises NormprobeError for no run and for two of one name."""
    names = [run.resolve().name for run in runs]
    if not names:
        raise NormprobeError("expected run directories to compare, got none; name two or more")
    if len(set(names)) < len(names):
        raise NormprobeError(
            f"expected runs of different names, got {', '.join(names)}; rename one directory"
        )
    return dict(zip(names, runs, strict=True))


def compare(runs: Sequence[Path]) -> pd.DataFrame:
    """One row per run, claim and quantity: the claim's own estimate (`ESTIMATE`), the margin that decides (`MARGIN`)
    and each of its controls by label.

    Columns: `COLUMNS`. version: of the claim; allowed: failed conditions that were allowed; low and high: the 95 %
    interval, NaN where nothing could be computed. Raises NormprobeError as `by_name`, for a run without readable
    evidence, and for runs that were judged by different versions of a claim.
    """
    named = by_name(runs)
    rows = [row for name, run in named.items() for row in _rows(run, name)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    for claim, judged in table.groupby("claim", sort=False):
        versions = judged.drop_duplicates("run").set_index("run")["version"]
        if versions.nunique() > 1:
            of_run = ", ".join(f"{version} in {run}" for run, version in versions.items())
            raise NormprobeError(
                f"expected runs judged by one version of {claim}, got {of_run}; judge the older ones again with "
                "normprobe verify --config RUN/config.yaml --out RUN"
            )
    return table


def _rows(path: Path, name: str) -> Iterator[tuple[object, ...]]:
    evidence, manifest = read_evidence(path), Run.load(path).manifest()
    model = manifest["identities"].get("model", {})
    identity = [model.get(key) for key in ("name", "n_layers", "d_model")]
    for item in evidence:
        shared = name, *identity, item.seed, item.claim, item.version, item.verdict, item.allowed
        decision = item.decision
        for number in (
            (ESTIMATE, item.form, item.estimate, *item.interval),
            (MARGIN, decision.form, decision.margin, *decision.interval),
            *(
                (control.label, control.form, control.estimate, *control.interval)
                for control in item.controls
            ),
        ):
            yield *shared, *number, item.unit, item.n, item.n_unit


def side_by_side(table: pd.DataFrame) -> Cells:
    """Claims down, runs across: a line each for verdict, estimate and margin, below the lines that say what each run is
    of. A claim that a run did not judge shows a dash."""
    runs = table["run"].unique().tolist()
    first = table.drop_duplicates("run").set_index("run").loc[runs]
    sizes = [
        "–" if pd.isna(width) else f"{depth:.0f} × {width:.0f}"
        for depth, width in zip(first["n_layers"], first["d_model"], strict=True)
    ]
    lines = [
        ["model", "name", *first["model"].fillna("–").astype(str)],
        ["", "layers × width", *sizes],
        ["", "seed", *first["seed"].astype(str)],
    ]
    for claim, rows in table.groupby("claim", sort=False):
        shown = {
            name: rows[rows["quantity"] == quantity].set_index("run").to_dict("index")
            for name, quantity in (("verdict", ESTIMATE), (ESTIMATE, ESTIMATE), (MARGIN, MARGIN))
        }
        for i, (name, of_run) in enumerate(shown.items()):
            cells = [_cell(name, of_run[run]) if run in of_run else "–" for run in runs]
            lines.append(["" if i else str(claim), name, *cells])
    return ["claim", "", *runs], lines


def _cell(name: str, row: dict) -> str:
    if name == "verdict":
        return marked(row["verdict"], row["allowed"])
    return with_interval(row["value"], (row["low"], row["high"]))


def text(cells: Cells) -> str:
    """A table of text, its columns aligned."""
    head, rows = cells
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe compare`."""
    command = parse(CompareCommand, argv, "compare")
    if command.markdown and command.json:
        raise NormprobeError("expected one form of output, got --markdown and --json; choose one")
    table = compare(command.runs)
    if command.json:
        print_json(records(table))
    else:
        cells = side_by_side(table)
        shown = markdown(*cells) if command.markdown else text(cells)
        print("\n\n".join([shown, *footnotes(table["allowed"])]))
    if command.out:
        if not command.out.parent.is_dir():
            raise NormprobeError(
                f"expected a folder for --out, got {command.out.parent}, which is none; make it first"
            )
        with refusing_disk_errors(command.out.parent):
            atomic_write_text(command.out, table.to_csv(index=False))


if __name__ == "__main__":
    sys.exit(run_main(main))
