"""The tokens that claims measure on, brought down to one number per problem and layer.

The problem is the unit of all statistics: tokens of one problem are no independent evidence, so a claim first reduces
them to arrays [problem, layer] and then resamples problems. Only the split "measure" is looked at: "sae" trained the
dictionaries and "select" chose the reasoning features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from normprobe.claims.measure.readers import LAYERLESS
from normprobe.errors import NormprobeError
from normprobe.runs.tables import Tables

RESPONSE = ("thought", "answer")
FEWEST_PROBLEMS = 10  # fewer carry no interval


class NotMeasurable(NormprobeError):
    """The run has the tables that a claim needs, but too little in them; the message says what is lacking."""


def require(n: int, what: str = "measured problems", fewest: int = FEWEST_PROBLEMS) -> None:
    """Raises NotMeasurable where a run has fewer than that."""
    if n < fewest:
        raise NotMeasurable(f"it needs at least {fewest} {what}, and this run has {n}")


def late_layers(layers: Sequence[int], depth: int) -> list[int]:
    """Rows of `layers` in the last quarter of a model of `depth` layers (rounded up: 10 layers → 7, 8, 9)."""
    return [row for row, layer in enumerate(layers) if layer >= depth - math.ceil(depth / 4)]


def middle_layers(layers: Sequence[int], depth: int) -> list[int]:
    """Rows of `layers` between the first quarter (rounded down) and the last (10 layers → 2 … 6)."""
    return [row for row, layer in enumerate(layers) if depth // 4 <= layer < depth - math.ceil(depth / 4)]


class MeasuredTokens:
    """The measurement split's tokens of problems that were answered in all of `modes`.

    `tokens` are their rows, `problem` [token] an index into `n_problems` problems, `problem_ids` those problems.
    `where` picks tokens as a mask over these rows; `pick` takes a mask's columns out of a run's arrays. Raises
    NotMeasurable for too few problems.
    """

    def __init__(self, tables: Tables, modes: Sequence[str]) -> None:
        self.tables, tokens = tables, tables.tokens
        in_scope = (tokens["split"] == "measure") & tokens["segment"].isin(list(RESPONSE))
        answered = tokens[in_scope & tokens["mode"].isin(list(modes))].groupby("problem_id")["mode"].nunique()
        problems = answered.index[answered == len(modes)]
        self.problem_ids, self.n_problems = problems, len(problems)
        require(self.n_problems, f"measured problems answered in {' and '.join(modes)}")
        self._columns = np.flatnonzero(in_scope & tokens["problem_id"].isin(problems))
        self.tokens = tokens.iloc[self._columns].reset_index(drop=True)
        self.problem: Int[np.ndarray, " token"] = problems.get_indexer(pd.Index(self.tokens["problem_id"]))

    def where(self, mode: str, segments: Sequence[str] = RESPONSE) -> Bool[np.ndarray, " token"]:
        """Tokens of one mode in these segments (by default thought and answer: the paper's whole responses)."""
        chosen = (self.tokens["mode"] == mode) & self.tokens["segment"].isin(list(segments))
        return chosen.to_numpy(dtype=bool)

    def identical_answers(self, mode: str) -> tuple[Bool[np.ndarray, " token"], Bool[np.ndarray, " token"]]:
        """Masks of the answer tokens that this mode and no_think wrote: same problem, sample, offset and token id."""
        answers = self.tokens[self.tokens["segment"] == "answer"].reset_index(names="row")
        answers["offset"] = answers.groupby("response_id").cumcount()
        keys = ["problem_id", "sample", "offset", "token_id"]
        both = answers[answers["mode"] == mode].merge(answers[answers["mode"] == "no_think"], on=keys)
        masks = np.zeros((2, len(self.tokens)), dtype=bool)
        masks[0, both["row_x"]] = True
        masks[1, both["row_y"]] = True
        return masks[0], masks[1]

    def pick(
        self, values: Float[np.ndarray, "*layer run_token"], mask: Bool[np.ndarray, " token"]
    ) -> Float[np.ndarray, "*layer picked"]:
        return values[..., self._columns[mask]]

    def read(
        self, subject: str, signal: str, layers: Sequence[int], mask: Bool[np.ndarray, " token"]
    ) -> Float[np.ndarray, "#layer picked"] | None:
        """A signal of the masked tokens at these layers, float64; one row if it has no layers.

        None if it was not recorded at all of them: a logit lens on a sample of tokens, a layer without attention.
        """
        if signal == "position":
            return self.tokens["position"].to_numpy(dtype=float)[None, mask]
        values = self.tables.signals(subject).get(signal)
        if values is None:
            return None
        values = values[None] if signal in LAYERLESS else values[list(layers)]
        picked = self.pick(values, mask).astype(float)
        return None if np.isnan(picked).any() else picked

    def means(
        self, values: Float[np.ndarray, "layer run_token"], mask: Bool[np.ndarray, " token"]
    ) -> Float[np.ndarray, "problem layer"]:
        """Mean over the masked tokens of each problem, in float64; NaN for a problem without such tokens."""
        problem = self.problem[mask]
        count = np.bincount(problem, minlength=self.n_problems).astype(float)
        count[count == 0] = np.nan
        picked = self.pick(values, mask)
        sums = [np.bincount(problem, weights=values_of, minlength=self.n_problems) for values_of in picked]
        return np.stack(sums, axis=1) / count[:, None]
