"""A run in Python: its verdicts as a table, its tables by name, its figures; a notebook shows the verdicts."""

from __future__ import annotations

import html
from functools import cached_property
from pathlib import Path

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.report.figure import Drawing
from normprobe.report.figures import FIGURES, stem_of
from normprobe.report.findings import read_evidence
from normprobe.report.table import allowed, count, margin, marked, unit, value
from normprobe.runs.directory import Run
from normprobe.runs.tables import Tables

_VERDICT_COLUMNS = ("claim", "verdict", "estimate", "low", "high", "unit")
_VERDICT_COLUMNS += ("margin", "margin_low", "margin_high", "strongest", "n", "n_unit")


class RunResults(Tables):
    """The results of one run directory: what `Tables` has (`run.tokens`, `run.signals("model")`), `run.verdicts`, and
    `run.plot(name)`."""

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """One row per judged claim: `claim`, `verdict`, `estimate` with its 95 % interval `low`, `high` in `unit`, the
        `margin` that decides with `margin_low`, `margin_high`, the control `strongest` that bounds it, `n` of `n_unit`.

        Raises NormprobeError for a run without evidence.
        """
        rows = [
            (
                *(item.claim, item.verdict, item.estimate, *item.interval, item.full_unit),
                *(
                    item.decision.margin,
                    *item.decision.interval,
                    item.decision.strongest,
                    item.n,
                    item.n_unit,
                ),
            )
            for item in read_evidence(self.path)
        ]
        return pd.DataFrame(rows, columns=list(_VERDICT_COLUMNS))

    def plot(self, name: str) -> Drawing:
        """A figure of the run, which a notebook shows; `.save(path)` writes it as PDF and PNG, `.caption` explains it.

        name: the stem of its file ("fig_02_norm_by_layer"), the part after the number, or a claim.
        Raises NormprobeError for an unknown name, NothingToDraw where the run lacks what the figure shows.
        """
        return FIGURES[stem_of(name)](self.path)

    def _repr_html_(self) -> str:
        """The verdict table, or what is missing for it."""
        try:
            evidence = read_evidence(self.path)
        except NormprobeError as error:
            return f"<p>{html.escape(str(error))}</p>"
        rows = [
            {
                "claim": item.claim,
                "verdict": marked(item.verdict, item.allowed),
                "estimate [95 % interval]": value(item),
                "unit": unit(item),
                "margin that decides": margin(item.decision),
                "n": f"{count(item.n)} {item.n_unit}",
            }
            for item in evidence
        ]
        notes = "".join(f"<p>{html.escape(line)}</p>" for line in allowed(evidence))
        return f"<p>{html.escape(str(self.path))}</p>{pd.DataFrame(rows).to_html(index=False)}{notes}"


def load_run(path: str | Path) -> RunResults:
    """The results of the run in a directory, finished or not. Raises NormprobeError if it holds no run."""
    return RunResults(Run.load(path).path)
