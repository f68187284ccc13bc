"""What `normprobe evaluate --tasks` found, in numbers: each treatment on the documents of each task."""

from __future__ import annotations

import numpy as np
import pandas as pd

from normprobe.labels import in_words
from normprobe.report.method_results import PLAIN, gain_cells
from normprobe.report.table import Cells, cells, count, number
from normprobe.runs.tables import Tables
from normprobe.stats.paired import mcnemar, paired_difference
from normprobe.stats.pass_at_k import pass_at_k

TASKS = (
    "Tasks of lm-evaluation-harness, with the paper's settings and their baselines. n: documents. Mean: of the task's "
    "metric, one answer per document; avg@n: of n sampled answers; pass@k: how likely k of them hold a right one "
    "(arXiv 2107.03374). Gain: mean or avg@n less the plain model's on the same documents, with its 95 % interval over "
    "documents and its p (McNemar's exact for one answer that is right or wrong, else one-sided sign flips). "
    "Acted on: share of tokens, mean over the layers. Per answer: tokens generated, and extra passes of layers counted "
    "as tokens (a pass of every layer is one). × plain: the two together, as a multiple of plain generation's. Where a "
    "baseline's is its method's, the two compare at equal tokens."
)


def task_table(tasks: pd.DataFrame) -> Cells:
    """A row per task, metric and treatment; see `TASKS`."""
    rows = []
    n = tasks["sample"].nunique()
    for (task, metric), table in tasks.groupby(["task", "metric"], sort=False):
        binary = bool(table["correct"].isin([0.0, 1.0]).all())
        plain = table[table["treatment"] == PLAIN]
        before = plain.groupby("problem_id", sort=False)["correct"].mean()
        for treatment, own in table.groupby("treatment", sort=False):
            answers = own.groupby("problem_id")["correct"]
            after = answers.mean().reindex(before.index).to_numpy()
            if n == 1 and binary:
                gain = mcnemar(after == 1, before.to_numpy() == 1)
            else:
                gain = paired_difference(after, before.to_numpy(), np.random.default_rng(0))
            acted = own["acted"].iloc[0]
            rows.append(
                {
                    "Task": str(task),
                    "Metric": str(metric),
                    "Treatment": in_words(str(treatment)),
                    "n": count(len(before)),
                    "Mean" if n == 1 else f"avg@{n}": number(after.mean()),
                    **gain_cells(gain, treatment),
                    **_pass_at(n, answers.sum() if binary else None),
                    "Acted on": "–" if np.isnan(acted) else f"{acted:.2%}",
                    "Tokens": number(own["n_tokens"].mean()),
                    "Passes": number(own["extra_tokens"].mean()),
                    "× plain": f"{_tokens(own) / _tokens(plain):.3f}",
                }
            )
    return cells(rows)


def task_text(tables: Tables) -> str:
    """The same for a terminal."""
    head, rows = task_table(tables.tasks)
    return pd.DataFrame(rows, columns=head).to_string(index=False)


def _pass_at(n: int, right: pd.Series | None) -> dict[str, str]:
    """The cells of pass@k for k = 1, 2, 4, … of n samples; none of one answer.

    right: by document, how many samples are right; None for a metric of grades, which has no pass@k.
    """
    powers = [2**i for i in range(n.bit_length())] if n > 1 else []
    if right is None:
        return {f"pass@{k}": "–" for k in powers}
    return {f"pass@{k}": number(float(np.mean([pass_at_k(n, int(of), k) for of in right]))) for k in powers}


def _tokens(answers: pd.DataFrame) -> float:
    """Tokens generated and extra passes counted as such, of all answers."""
    return float((answers["n_tokens"] + answers["extra_tokens"]).sum())
