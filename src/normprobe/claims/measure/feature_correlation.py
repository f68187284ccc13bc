"""How closely a signal follows the reasoning features within one layer, over the tokens of one problem's responses.

Spearman's ρ with Σ_{i∈I} z_i over a problem's response tokens (think and no_think together), averaged over problems.
Depth cannot enter it, nor can differences between problems. Sinks are excluded in the second and third of `FORMS`:
their massive norms say nothing about features, and one would shift its token's mean. A problem in which Σz is the same
at every token is left out, and so is a layer in which the model has no reasoning features, of its controls too: there
is nothing to correlate with, which is not a correlation of 0.

In the third the mean over all measured tokens of the same vocabulary item is taken off the signal (of the norm its
logarithm, since norms grow by factors) and Σz alike, what is left is ranked within the problem, and the ranks of
position and surprisal are partialled out linearly. Frequency leaves with identity; a token that occurs once is left
with 0. Surprisal is that of the network which the signal was read from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.claims.measure.measured_tokens import MeasuredTokens, NotMeasurable
from normprobe.claims.measure.readers import (
    LAYERLESS,
    NORM,
    READER_NAMES,
    null_readers,
    of_layers,
    readable,
    subject_of,
)
from normprobe.claims.measure.resampling import average
from normprobe.claims.measure.within_groups import (
    centred_within,
    correlation_within,
    ranks_within,
    residuals_within,
)
from normprobe.runs.tables import Tables

PLAIN = "all tokens"
NO_SINKS = "sinks excluded"
REGRESSED = "token identity, position, surprisal regressed out"
FORMS = (PLAIN, NO_SINKS, REGRESSED)

ByLayer = Float[np.ndarray, "draw layer"]


def correlations(
    measured: MeasuredTokens, weights: Float[np.ndarray, "draw problem"], signals: Sequence[str]
) -> dict[str, dict[str, dict[str, ByLayer] | None]]:
    """`feature_correlation` by form, reader (this model and its nulls, by name; None for one that the run lacks) and
    signal."""
    return {
        form: {
            READER_NAMES[reader]: feature_correlation(measured, reader, weights, form, signals)
            if readable(measured.tables, reader)
            else None
            for reader in ("model", *null_readers(measured.tables))
        }
        for form in FORMS
    }


def rows_with_features(tables: Tables) -> list[int]:
    """Rows of the model's layers that have reasoning features. Raises NotMeasurable where none has."""
    rows = np.flatnonzero(of_layers(tables, "model", "n_selected") > 0).tolist()
    if not rows:
        raise NotMeasurable("it needs reasoning features, and no layer of this run has one")
    return rows


def mode_gap(
    measured: MeasuredTokens,
    weights: Float[np.ndarray, "draw problem"],
    values: Float[np.ndarray, "layer run_token"],
) -> tuple[ByLayer, ByLayer]:
    """The paper's form: think − no_think of the mean over responses, by layer, and the mean of the two modes."""
    think, no_think = (
        average(weights, measured.means(values, measured.where(mode))) for mode in ("think", "no_think")
    )
    return think - no_think, (think + no_think) / 2


def feature_correlation(
    measured: MeasuredTokens,
    reader: str,
    weights: Float[np.ndarray, "draw problem"],
    form: str,
    signals: Sequence[str],
    layers: Sequence[int] | None = None,
) -> dict[str, ByLayer]:
    """ρ of each signal that the reader's subject has, at the reader's layers (or those of them in `layers`)."""
    known = measured.tables.layers(reader)
    layers = known if layers is None else layers
    mask = measured.where("think") | measured.where("no_think")
    if form != PLAIN:
        mask &= ~measured.tokens["sink"].to_numpy(dtype=bool)
    problem = measured.problem[mask]
    identity, _ = pd.factorize(measured.tokens["token_id"][mask])

    def read(signal: str) -> Float[np.ndarray, "#layer token"] | None:
        values = measured.read(subject_of(reader), signal, layers, mask)
        return np.log(values) if values is not None and signal == NORM else values

    covariates = [values for name in LAYERLESS if (values := read(name)) is not None]

    def prepared(values: Float[np.ndarray, "#layer token"]) -> Float[np.ndarray, "#layer token"]:
        if form != REGRESSED:
            return ranks_within(values, problem)
        rest = ranks_within(centred_within(values, identity), problem)
        return residuals_within(rest, ranks_within(np.concatenate(covariates), problem), problem)

    rows = [known.index(layer) for layer in layers]
    z = prepared(measured.pick(measured.tables.z(reader)["z_reasoning"][rows], mask).astype(float))
    return {
        signal: average(weights, correlation_within(prepared(values), z, problem, measured.n_problems))
        for signal in signals
        if (values := read(signal)) is not None
    }
