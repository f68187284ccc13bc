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

from normprobe.claims.evidence import Evidence
from normprobe.claims.measure.drawing import by_reader
from normprobe.claims.measure.feature_correlation import (
    FORMS,
    NO_SINKS,
    PLAIN,
    REGRESSED,
    feature_correlation,
)
from normprobe.claims.measure.judgement import (
    READER_NAMES,
    Draws,
    Form,
    Resampling,
    average,
    beside,
    interval,
    judge,
    null_readers,
    row,
    said,
    series,
    subject_of,
)
from normprobe.claims.measure.measured import Measured
from normprobe.claims.measure.signals import NORM
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import partial_spearman, spearman
from normprobe.style import GREY

NAME = "norm_tracks_features"
STATEMENT = "The norm of the hidden state tracks the activation of the reasoning features."
NEEDS = frozenset({"tokens", "signals/model", "dictionary", "z/model"})
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
MODEL = READER_NAMES["model"]
LAYERWISE, NO_SCALE, NO_DEPTH = (
    "layer-wise ρ",
    "layer-wise ρ, per-layer scale removed",
    "layer-wise ρ, depth partialled out",
)


def _layerwise(tables: Tables, reader: str, measured: Measured, weights: np.ndarray) -> dict[str, Draws]:
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


def evaluate(tables: Tables, resample: Resampling, seed: int) -> tuple[Evidence, pd.DataFrame]:
    """Judge the claim on the measurement split; the series hold ρ by form, reader and layer, and at layer −1 their
    means
    over layers and the layer-wise forms. Raises NotJudged for too few problems answered in both modes.
    """
    measured = Measured(tables, ["think", "no_think"])
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
    verdict, decision = judge(
        {form: Form.of(named) for form, named in means.items()}, null=0.0, smallest_effect=SMALLEST_EFFECT
    )
    estimate = by_layer[PLAIN]["model"].mean(axis=1)
    evidence = Evidence(
        claim=NAME,
        statement=STATEMENT,
        verdict=verdict,
        rule=RULE,
        estimate=float(estimate[0]),
        unit="Spearman ρ within a layer over tokens",
        interval=interval(estimate),
        n=measured.n_problems,
        n_unit="problems",
        controls=(
            *(beside(name, draws) for name, draws in means[PLAIN].items() if name != MODEL),
            *(
                beside(f"{form}: {name}", draws)
                for form in (NO_SINKS, REGRESSED)
                for name, draws in means[form].items()
            ),
            *(
                beside(f"{form}: {READER_NAMES[reader]}", layerwise[reader][form])
                for form in (LAYERWISE, NO_SCALE, NO_DEPTH)
                for reader in known
            ),
        ),
        decision=decision,
        seed=seed,
        note=_note(means, layerwise),
    )
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
    return evidence, pd.concat(frames, ignore_index=True)


def _note(means: dict[str, dict[str, Draws | None]], layerwise: dict[str, dict[str, Draws]]) -> str:
    naive = {reader: float(forms[LAYERWISE][0]) for reader, forms in layerwise.items()}
    nulls = [f"{value:.2f} ({READER_NAMES[reader]})" for reader, value in naive.items() if reader != "model"]
    plain, rest, untrained, random = (
        means[PLAIN],
        means[REGRESSED],
        READER_NAMES["untrained"],
        READER_NAMES["random"],
    )
    return (
        "Within a layer, from token to token, norm and reasoning features correlate at "
        f"{said(plain[MODEL])}; an untrained network gives {said(plain[untrained])}, a random "
        f"dictionary {said(plain[random])}. With token identity, position and surprisal regressed out it is "
        f"{said(rest[MODEL])} here and {said(rest[random])} with a random dictionary. The paper's layer-wise ρ is "
        f"{naive['model']:.2f} here, against {', '.join(nulls) or 'no null that could be computed'}."
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
