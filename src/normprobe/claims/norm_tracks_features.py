"""Claim 2, second half: the norm follows the activation of the reasoning features (arXiv 2606.06188, Spearman table).

The paper correlates over layers: the gap of the mean norms with ΣΔz. That is reported, and decides nothing: the norm
grows with depth, codes scale with the state, and so untrained networks with random dictionaries reach 0.7 to 0.9.

Estimand: Spearman's ρ of ‖h‖ and Σ_{i∈I} z_i within one layer, over the tokens of one problem's responses (think and
no_think together), averaged over layers and problems. Three ways of measuring must agree: all tokens; sinks excluded;
and what token identity (with it frequency), position and surprisal leave of both (`feature_correlation`): a feature
that fires on certain words, and a norm that is high on the same words, track the words and not each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.drawing import by_reader
from normprobe.claims.measure.feature_correlation import (
    FORMS,
    NO_SINKS,
    PLAIN,
    REGRESSED,
    feature_correlation,
)
from normprobe.claims.measure.measured_tokens import MeasuredTokens
from normprobe.claims.measure.readers import MODEL, READER_NAMES, TWIN, null_readers, subject_of
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, row, series
from normprobe.claims.measure.signal_values import NORM
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import partial_spearman, spearman
from normprobe.style import GREY

# Below a tenth the norm would tell less than 1 % of the variance of the features' ranks.
SMALLEST_EFFECT = 0.1
RULE = (
    "ρ = Spearman's correlation of the norm and Σ z of the reasoning features within a layer over a "
    "problem's tokens, mean over layers and problems. In each of three forms (all tokens; sinks excluded; token "
    "identity, position and surprisal regressed out of both) margin = ρ − the largest of 0, untrained twin, random "
    "dictionary and (where the run has one) early checkpoint, measured in the same form. Supported if the 95 % "
    f"interval of the smallest of the three margins lies above {SMALLEST_EFFECT}, not supported if below, else "
    "inconclusive; inconclusive if a control cannot be computed. The paper's layer-wise ρ is shown and does not count."
)
LAYERWISE, NO_SCALE, NO_DEPTH = (
    "layer-wise ρ",
    "layer-wise ρ, per-layer scale removed",
    "layer-wise ρ, depth partialled out",
)


def _layerwise(
    tables: Tables, reader: str, measured: MeasuredTokens, weights: np.ndarray
) -> dict[str, Draws]:
    """The paper's ρ over layers, of the gap in norm with ΣΔz; raw, per unit norm of each layer, and given depth."""
    layers = tables.layers(reader)
    norm, z = tables.signals(subject_of(reader))["norm"][layers], tables.z(reader)["z_reasoning"]
    (n_think, n_not), (z_think, z_not) = (
        [average(weights, measured.means(values, measured.where(mode))) for mode in ("think", "no_think")]
        for values in (norm, z)
    )
    gap, rise, scale = n_think - n_not, z_think - z_not, (n_think + n_not) / 2
    depth = np.arange(len(layers), dtype=float)
    return {
        LAYERWISE: spearman(gap, rise),
        NO_SCALE: spearman(gap / scale, rise / scale),
        NO_DEPTH: partial_spearman(gap, rise, [depth]),
    }


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure ρ in three forms; the series hold it by form, reader and layer, and at layer −1 its means over layers and
    the layer-wise forms. Raises NotMeasurable for too few problems answered in both modes.
    """
    measured = MeasuredTokens(tables, ["think", "no_think"])
    weights = resample(measured.n_problems)
    readers = ["model", *null_readers(tables)]
    known = [
        reader
        for reader in readers
        if tables.has(f"signals/{subject_of(reader)}") and tables.has(f"z/{reader}")
    ]
    by_layer = {
        form: {
            reader: feature_correlation(tables, reader, measured, weights, form, [NORM])[NORM]
            for reader in known
        }
        for form in FORMS
    }
    layerwise = {reader: _layerwise(tables, reader, measured, weights) for reader in known}

    means: dict[str, dict[str, Draws | None]] = {
        form: {
            READER_NAMES[reader]: of_reader[reader].mean(axis=1) if reader in known else None
            for reader in readers
        }
        for form, of_reader in by_layer.items()
    }
    frames = [
        series(form, READER_NAMES[reader], values, tables.layers(reader))
        for form, of_reader in by_layer.items()
        for reader, values in of_reader.items()
    ]
    frames += [
        row(form, name, draws)
        for form, named in means.items()
        for name, draws in named.items()
        if draws is not None
    ]
    frames += [
        row(form, READER_NAMES[reader], draws)
        for reader, forms in layerwise.items()
        for form, draws in forms.items()
    ]
    estimate = means[PLAIN][MODEL]
    assert estimate is not None  # the claim needs the model's own activations
    return Measurement(
        estimate=estimate,
        form=PLAIN,
        forms={form: Form.of(named) for form, named in means.items()},
        n=measured.n_problems,
        note=_note(means, layerwise),
        series=pd.concat(frames, ignore_index=True),
        further=[
            control(form, READER_NAMES[reader], layerwise[reader][form])
            for form in (LAYERWISE, NO_SCALE, NO_DEPTH)
            for reader in known
        ],
    )


def _note(means: dict[str, dict[str, Draws | None]], layerwise: dict[str, dict[str, Draws]]) -> str:
    naive = {reader: float(forms[LAYERWISE][0]) for reader, forms in layerwise.items()}
    nulls = [f"{value:.2f} ({READER_NAMES[reader]})" for reader, value in naive.items() if reader != "model"]
    plain, rest, random = means[PLAIN], means[REGRESSED], READER_NAMES["random"]
    return (
        "Within a layer, from token to token, norm and reasoning features correlate at "
        f"{as_text(plain[MODEL])}; an untrained network gives {as_text(plain[TWIN])}, a random "
        f"dictionary {as_text(plain[random])}. With token identity, position and surprisal regressed out it is "
        f"{as_text(rest[MODEL])} here and {as_text(rest[random])} with a random dictionary. The paper's layer-wise ρ "
        f"is {naive['model']:.2f} here, against {', '.join(nulls) or 'no null that could be computed'}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """ρ within a layer in the three forms that decide, above the paper's layer-wise ρ; beneath each its nulls."""
    axes.axvline(0.0, color=GREY, linewidth=0.6)
    by_reader(
        axes,
        series,
        {
            PLAIN: "within a layer",
            NO_SINKS: "sinks excluded",
            REGRESSED: "identity, position,\nsurprisal regressed out",
            LAYERWISE: "layer-wise",
            NO_SCALE: "layer-wise, scale removed",
            NO_DEPTH: "layer-wise, depth partialled out",
        },
    )
    axes.set_xlabel(
        f"Spearman ρ with reasoning features (95 % intervals, n = {evidence.n} {evidence.n_unit})"
    )


CLAIM = Claim(
    order=3,
    name="norm_tracks_features",
    version=1,
    title="Does the norm track the reasoning features?",
    statement="The norm of the hidden state tracks the activation of the reasoning features.",
    caption=(
        "Rank correlation of the norm with the summed activation of the reasoning features. Top: within a layer, over "
        "tokens, in the three forms that decide. Below: over layers, the paper's form, which depth alone drives up. "
        "Filled: this model. Open: null models. Lines: 95 % intervals."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model", "dictionary", "z/model"}),
    unit="Spearman ρ within a layer over tokens",
    smallest_effect=SMALLEST_EFFECT,
    measure=measure,
    panel=panel,
    figure="fig_03_signals",
    paper_form=LAYERWISE,
    planted="reasoning",
)
