"""How often the model is right: by mode, and within it by domain and by difficulty (the model card's table)."""

from __future__ import annotations

import math

import pandas as pd

from normprobe.runs.tables import Tables


def accuracy_table(tables: Tables) -> pd.DataFrame:
    """Accuracy on the measurement problems, one row per group and mode; no rows where nothing is scored.

    Columns: `group` ("all", "domain", "difficulty"), `label`, `mode`, `accuracy` (mean over problems of the share of
    their responses that are correct, 0…1), `low`, `high` (95 % interval), `n` (problems). A truncated response is
    wrong.
    """
    responses = tables.responses
    scored = responses[(responses["split"] == "measure") & responses["correct"].notna()]
    problems = (
        scored.assign(correct=scored["correct"].astype(float))
        .groupby(["problem_id", "mode"], as_index=False)["correct"]
        .mean()
        .merge(tables.problems[["problem_id", "domain", "difficulty"]], on="problem_id")
        .assign(all="all problems")
    )
    parts = []
    for group in ("all", "domain", "difficulty"):
        by = problems.groupby([group, "mode"], as_index=False)["correct"].agg(["mean", "size"])
        label = by[group].map(_difficulty) if group == "difficulty" else by[group]
        parts.append(by.assign(group=group, label=label).rename(columns={"mean": "accuracy", "size": "n"}))
    table = pd.concat(parts, ignore_index=True)
    ends = [wilson(row.accuracy, row.n) for row in table.itertuples()]
    table["low"], table["high"] = [low for low, _ in ends], [high for _, high in ends]
    return table[["group", "label", "mode", "accuracy", "low", "high", "n"]]


def _difficulty(value: object) -> str:
    return f"difficulty {value:g}" if isinstance(value, int | float) else f"difficulty {value}"


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of n: unlike a bootstrap it has a width at 0 and at 1."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
