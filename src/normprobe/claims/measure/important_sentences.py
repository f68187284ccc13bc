"""Is the norm higher at the sentences of a thought that its answer hangs on? The second form of `marks_critical_steps`.

Only sentences of one thought are compared, pair by pair, and only where their importance differs: the number is the
probability that the more important one has the higher norm, which is the AUROC where importance has two values.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from normprobe.claims.measure.measured_tokens import require
from normprobe.claims.measure.resampling import average
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import partial_kendall, sign_products

PEAK, MEAN = "important sentences, peak norm", "important sentences, mean norm"
REGRESSED = "position, surprisal, length regressed out"
FORMS = (PEAK, MEAN, f"{PEAK}; {REGRESSED}", f"{MEAN}; {REGRESSED}")


class ImportantSentences:
    """The sentences of a run whose importance is known, with the tokens that they hold.

    importance: total variation less what chance alone gives. Tokens that are sinks are left out, and with them the
    sentences that hold nothing else. Raises NotMeasurable for too few thoughts in which importance differs.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables, tokens = tables, tables.tokens
        known = tables.importance[tables.importance["total_variation"].notna()]
        # Tokens of a response follow one another in the table.
        offset = tokens["response_id"].drop_duplicates()
        first = dict(zip(offset, offset.index, strict=True))
        sink = tokens["sink"].to_numpy(dtype=bool)
        rows = [
            np.arange(first[response] + start, first[response] + end)
            for response, start, end in zip(known["response_id"], known["start"], known["end"], strict=True)
        ]
        self._rows = [own[~sink[own]] for own in rows]
        some = np.array([len(own) > 0 for own in self._rows], dtype=bool)
        self._rows, known = [own for own in self._rows if len(own)], known[some]
        self.importance = (known["total_variation"] - known["chance"]).to_numpy(dtype=float)
        self.groups = [
            members
            for members in known.groupby("problem_id", sort=False).indices.values()
            if len(np.unique(self.importance[members])) > 1
        ]
        require(len(self.groups), "measured problems whose sentences differ in importance")
        surprisal = tables.signals("model")["surprisal"]
        self._covariates = np.stack(
            [
                known["sentence"].to_numpy(dtype=float),
                np.array([surprisal[own].mean() for own in self._rows], dtype=float),
                (known["end"] - known["start"]).to_numpy(dtype=float),
            ]
        )

    @property
    def n(self) -> int:
        """How many problems are compared within."""
        return len(self.groups)

    def forms(
        self, subject: str, weights: Float[np.ndarray, "draw problem"]
    ) -> dict[str, Float[np.ndarray, "draw layer"]]:
        """The probability, by form, that the more important of two sentences has a subject's higher norm.

        What is regressed out is so anew in every draw: ½ + τ/2, τ Kendall's partial correlation of all pairs.
        """
        norm = self._tables.signals(subject)["norm"]
        values = {
            PEAK: np.stack([norm[:, own].max(axis=1) for own in self._rows], axis=1),
            MEAN: np.stack([norm[:, own].mean(axis=1, dtype=np.float64) for own in self._rows], axis=1),
        }
        found: dict[str, Float[np.ndarray, "draw layer"]] = {}
        for form in FORMS:
            plain, _, regressed = form.partition("; ")
            covariates = self._covariates if regressed else self._covariates[:0]
            found[form] = 0.5 + self._tau(values[plain].astype(float), covariates, weights) / 2
        return found

    def _tau(
        self,
        values: Float[np.ndarray, "layer sentence"],
        covariates: Float[np.ndarray, "covariate sentence"],
        weights: Float[np.ndarray, "draw problem"],
    ) -> Float[np.ndarray, "draw layer"]:
        products = np.stack(
            [sign_products(values[:, own], self.importance[own], covariates[:, own]) for own in self.groups]
        )
        means = average(weights, products.reshape(len(products), -1))
        return partial_kendall(means.reshape(len(weights), *products.shape[1:]))
