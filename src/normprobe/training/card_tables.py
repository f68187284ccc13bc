"""Tables of a model card, in Markdown: accuracies with their intervals."""

from collections.abc import Iterable

import pandas as pd
from scipy.stats import binomtest


def percent(correct: Iterable[bool]) -> str:
    """Accuracy in percent with its exact 95 % interval (Clopper–Pearson), as in `97 [94, 99]`."""
    outcomes = list(correct)
    result = binomtest(sum(outcomes), len(outcomes))
    interval = result.proportion_ci(confidence_level=0.95)
    return f"{100 * result.statistic:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def table(cells: pd.DataFrame) -> str:
    """A table in Markdown."""
    head, *rows = (f"| {' | '.join(map(str, row))} |" for row in (cells.columns, *cells.to_numpy(object)))
    return "\n".join([head, "|---" * cells.shape[1] + "|", *rows])
