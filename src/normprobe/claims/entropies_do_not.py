"""Claim 2, the contrast: hidden, output and attention entropy follow the reasoning features less than the norm does.

ρ is averaged over problems with its sign, |ρ| over layers. (Resampling pushes a |ρ| near 0 up, of all signals alike.)
The hidden entropy competes in three forms, since that of softmax(h) falls with the scale of h and so repeats the norm:
softmax(h), softmax(√d·h/‖h‖) and h²/‖h‖² (which of them arXiv 2606.06188 used is not known to us).

Sinks are excluded in the second form, since a lead that a few massive norms give is none. Whether the norm tracks
anything once token identity, position and surprisal are regressed out is what `norm_tracks_features` asks: a lead of
nothing over nothing would be a second verdict on that claim. Controls read as many features as the model, since with
few or none every |ρ| is near 0, and so is the lead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Control, Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.drawing import by_reader
from normprobe.claims.measure.feature_correlation import (
    NO_SINKS,
    PLAIN,
    REGRESSED,
    ByLayer,
    correlations,
    mode_gap,
    rows_with_features,
)
from normprobe.claims.measure.measured_tokens import MeasuredTokens
from normprobe.claims.measure.readers import (
    AS_MANY,
    EARLY,
    ENTROPIES,
    MODEL,
    NAMES,
    NORM,
    RANDOM,
    TWIN,
    rules_out,
    unread,
)
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, tidy
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import spearman

SMALLEST_EFFECT = 0.1
RULE = (
    "Lead = |ρ| of the norm − |ρ| of the best entropy (hidden in three forms, output, attention), Spearman's ρ with "
    "Σ z of the reasoning features within a layer over a problem's tokens, mean over the layers with reasoning "
    "features. In each of two forms (all tokens; sinks excluded) margin = lead − the largest of 0 and the lead in "
    "the untrained twin, with a random dictionary and (where the run has one) in the early checkpoint. Supported if "
    f"the 95 % interval of the smaller of the two margins lies above {SMALLEST_EFFECT}, not supported if below, else "
    f"inconclusive; inconclusive if an entropy or a control cannot be computed. {AS_MANY} The lead with token "
    "identity, position and surprisal regressed out is shown and does not count."
)
SIGNALS = (NORM, *ENTROPIES)


def _strength(rho: dict[str, ByLayer], rows: list[int]) -> dict[str, Draws]:
    """|ρ| of each signal, mean over these rows of layers.

    0 in a layer where an entropy is the same at every token and the norm is not: that there is something to follow, and
    the entropy does not, is a result.
    """
    known = np.isfinite(rho[NORM][:, rows])
    strength = {signal: np.abs(values[:, rows]) for signal, values in rho.items()}
    return {
        signal: np.where(np.isnan(values) & known, 0.0, values).mean(axis=1)
        for signal, values in strength.items()
    }


def _lead(strength: dict[str, Draws]) -> Draws:
    """The norm's |ρ| over the best entropy's, the best found anew in every draw."""
    return strength[NORM] - np.maximum.reduce([strength[name] for name in ENTROPIES if name in strength])


def _layerwise(measured: MeasuredTokens, weights: np.ndarray) -> dict[str, Draws]:
    """The paper's form on this model: ρ over layers of a signal's gap (think − no_think) with ΣΔz."""
    layers, signals = measured.tables.layers("model"), measured.tables.signals("model")
    rise, _ = mode_gap(measured, weights, measured.tables.z("model")["z_reasoning"])
    return {
        f"layer-wise, {signal}": spearman(mode_gap(measured, weights, signals[signal][layers])[0], rise)
        for signal in SIGNALS
        if signal in signals and not np.isnan(signals[signal][layers]).any()
    }


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the lead; the series hold ρ by signal, reader and layer, |ρ| over layers (layer −1), and the paper's
    layer-wise form. Raises NotMeasurable for too few problems answered in both modes.
    """
    measured = MeasuredTokens(tables, ["think", "no_think"])
    weights = resample(measured.n_problems)
    rho, rows = correlations(measured, weights, SIGNALS), rows_with_features(tables)
    strength = {
        form: {name: _strength(found, rows) for name, found in named.items() if found}
        for form, named in rho.items()
    }
    leads: dict[str, dict[str, Draws | None]] = {
        form: {name: _lead(strength[form][name]) if found else None for name, found in named.items()}
        for form, named in rho.items()
    }
    ours = strength[PLAIN][MODEL]
    lacking = {name: None for entropy, name in ENTROPIES.items() if entropy not in ours}
    by_layer = {name: found for name, found in rho[PLAIN].items() if found}
    frames = [
        *tidy(by_layer, tables.layers("model"), names_first=True),
        *tidy(strength[PLAIN], names_first=True),
        *tidy({MODEL: _layerwise(measured, weights)}, names_first=True),
    ]
    return Measurement(
        form=PLAIN,
        forms={form: Form.of(leads[form] | lacking) for form in (PLAIN, NO_SINKS)},
        n=measured.n_problems,
        note=_note(ours, leads),
        series=pd.concat(frames, ignore_index=True),
        further=[
            *_strengths(PLAIN, ours),
            *(control(REGRESSED, name, draws) for name, draws in leads[REGRESSED].items()),
            *_strengths(REGRESSED, strength[REGRESSED][MODEL]),
        ],
        lacking=unread(tables) | dict.fromkeys(lacking, "it was not recorded at every measured token"),
    )


def _strengths(form: str, strength: dict[str, Draws]) -> list[Control]:
    return [control(form, NAMES[signal], strength.get(signal), quantity="|ρ|") for signal in SIGNALS]


def _note(strength: dict[str, Draws], leads: dict[str, dict[str, Draws | None]]) -> str:
    best = max((name for name in ENTROPIES if name in strength), key=lambda name: strength[name][0])
    lead, untrained, random = (leads[PLAIN][name] for name in (MODEL, TWIN, RANDOM))
    order = "more" if strength[NORM][0] > strength[best][0] else "less"
    return (
        f"Within a layer the norm follows the reasoning features with |ρ| = {strength[NORM][0]:.2f}, "
        f"{order} than the best entropy ({ENTROPIES[best]}, {strength[best][0]:.2f}): a lead of {as_text(lead)}. "
        f"In an untrained network the lead is {as_text(untrained)}, with a random dictionary {as_text(random)}. "
        f"With token identity, position and surprisal regressed out it is {as_text(leads[REGRESSED][MODEL])}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """|ρ| of every signal in this model (filled), with its nulls beneath (grey, open)."""
    by_reader(axes, series, {signal: NAMES[signal] for signal in SIGNALS})
    axes.set_xlim(left=0.0)
    axes.set_xlabel(f"|Spearman ρ| with reasoning features (n = {evidence.n} {evidence.n_unit})")


CLAIM = Claim(
    order=4,
    name="entropies_do_not",
    version=2,
    title="Do the entropies track them less than the norm does?",
    statement="Hidden, output and attention entropy track the reasoning features less than the norm does.",
    caption=(
        "Strength of the rank correlation with the summed reasoning features, within a layer over tokens, for the norm "
        "and each entropy. Filled: this model. Open: null models. Lines: 95 % intervals."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model", "dictionary", "z/model"}),
    modes=frozenset({"think", "no_think"}),
    unit="lead of the norm in |Spearman ρ| within a layer over tokens",
    measured="the lead of the norm over the best entropy in following the features",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest="Half of the smallest lead in the paper's table (85.2 against 63.3, ×100).",
    rules_out=rules_out(TWIN, RANDOM, EARLY),
    measure=measure,
    panel=panel,
    figure="fig_03_signals",
    planted="reasoning",
)
