"""Claim 2, second half: the norm follows the activation of the reasoning features (arXiv 2606.06188, Spearman table).

The paper correlates over layers: the gap of the mean norms with ΣΔz. That is reported, and decides nothing: the norm
grows with depth, codes scale with the state, and so untrained networks with random dictionaries reach 0.7 to 0.9.

Token identity (with it frequency) is regressed out of both since a feature that fires on certain words, and a norm that
is high on the same words, track the words and not each other.

A control in which the selection rule finds few features or none (an untrained twin) had a ρ near 0, exactly 0 or none
at all, and was exceeded for that reason: hence as many features for each, and no number from a Σz that does not vary.
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
    NO_SINKS,
    PLAIN,
    REGRESSED,
    correlations,
    mode_gap,
    rows_with_features,
)
from normprobe.claims.measure.measured_tokens import MeasuredTokens
from normprobe.claims.measure.readers import (
    AS_MANY,
    EARLY,
    MODEL,
    NORM,
    RANDOM,
    READER_NAMES,
    TWIN,
    null_readers,
    readable,
    rules_out,
    subject_of,
    unread,
)
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, over_layers, tidy
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import spearman
from normprobe.style import GREY

SMALLEST_EFFECT = 0.1
RULE = (
    "ρ = Spearman's correlation of the norm and Σ z of the reasoning features within a layer over a problem's "
    "tokens, mean over problems and the layers with reasoning features. In each of three forms (all tokens; sinks "
    "excluded; token identity, position and surprisal regressed out of both) margin = ρ − the largest of 0, "
    "untrained twin, random dictionary and (where the run has one) early checkpoint, measured in the same form. "
    f"Supported if the 95 % interval of the smallest of the three margins lies above {SMALLEST_EFFECT}, not "
    f"supported if below, else inconclusive; inconclusive if a control cannot be computed. {AS_MANY} The paper's "
    "layer-wise ρ is shown and does not count."
)
LAYERWISE = "layer-wise ρ"
NO_SCALE, NO_DEPTH = f"{LAYERWISE}, per-layer scale removed", f"{LAYERWISE}, depth partialled out"


def _layerwise(measured: MeasuredTokens, reader: str, weights: np.ndarray) -> dict[str, Draws]:
    """The paper's ρ over layers, of the gap in norm with ΣΔz; raw, per unit norm of each layer, and given depth."""
    tables, layers = measured.tables, measured.tables.layers(reader)
    gap, scale = mode_gap(measured, weights, tables.signals(subject_of(reader))["norm"][layers])
    rise, _ = mode_gap(measured, weights, tables.z(reader)["z_reasoning"])
    return {
        LAYERWISE: spearman(gap, rise),
        NO_SCALE: spearman(gap / scale, rise / scale),
        NO_DEPTH: spearman(gap, rise, np.arange(len(layers), dtype=float)),
    }


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure ρ in three forms; the series hold it by form, reader and layer, and at layer −1 its means over layers and
    the layer-wise forms. Raises NotMeasurable for too few problems answered in both modes.
    """
    measured = MeasuredTokens(tables, ["think", "no_think"])
    weights = resample(measured.n_problems)
    by_layer = {
        form: {name: None if rho is None else rho[NORM] for name, rho in named.items()}
        for form, named in correlations(measured, weights, [NORM]).items()
    }
    rows = rows_with_features(tables)
    means = {form: over_layers(named, rows) for form, named in by_layer.items()}
    layerwise = {
        READER_NAMES[reader]: _layerwise(measured, reader, weights)
        for reader in ("model", *null_readers(tables))
        if readable(tables, reader)
    }
    frames = [*tidy(by_layer, tables.layers("model")), *tidy(means), *tidy(layerwise, names_first=True)]
    return Measurement(
        form=PLAIN,
        forms={form: Form.of(named) for form, named in means.items()},
        n=measured.n_problems,
        note=_note(means, layerwise),
        series=pd.concat(frames, ignore_index=True),
        further=[
            control(form, name, found[form])
            for form in (LAYERWISE, NO_SCALE, NO_DEPTH)
            for name, found in layerwise.items()
        ],
        lacking=unread(tables),
    )


def _note(means: dict[str, dict[str, Draws | None]], layerwise: dict[str, dict[str, Draws]]) -> str:
    naive = {name: float(forms[LAYERWISE][0]) for name, forms in layerwise.items()}
    nulls = [f"{value:.2f} ({name})" for name, value in naive.items() if name != MODEL]
    plain, rest, random = means[PLAIN], means[REGRESSED], RANDOM
    return (
        "Within a layer, from token to token, norm and reasoning features correlate at "
        f"{as_text(plain[MODEL])}; an untrained network gives {as_text(plain[TWIN])}, a random "
        f"dictionary {as_text(plain[random])}. With token identity, position and surprisal regressed out it is "
        f"{as_text(rest[MODEL])} here and {as_text(rest[random])} with a random dictionary. The paper's layer-wise ρ "
        f"is {naive[MODEL]:.2f} here, against {', '.join(nulls) or 'no null that could be computed'}."
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
            NO_SCALE: "layer-wise,\nscale removed",
            NO_DEPTH: "layer-wise,\ndepth partialled out",
        },
    )
    axes.set_xlabel(f"Spearman ρ with reasoning features (n = {evidence.n} {evidence.n_unit})")


CLAIM = Claim(
    order=3,
    name="norm_tracks_features",
    version=2,
    title="Does the norm track the reasoning features?",
    statement="The norm of the hidden state tracks the activation of the reasoning features.",
    caption=(
        "Rank correlation of the norm with the summed activation of the reasoning features. Top: within a layer, over "
        "tokens, in the three forms that decide. Below: over layers, the paper's form, which depth alone drives up. "
        "Filled: this model. Open: null models. Lines: 95 % intervals."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model", "dictionary", "z/model"}),
    modes=frozenset({"think", "no_think"}),
    unit="Spearman ρ within a layer over tokens",
    measured="the correlation of norm and reasoning features from token to token",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest="Below a tenth the norm would tell less than 1 % of the variance of the features' ranks.",
    rules_out=rules_out(TWIN, RANDOM, EARLY),
    measure=measure,
    panel=panel,
    figure="fig_03_signals",
    height=1.2,
    paper_form=LAYERWISE,
    planted="reasoning",
)
