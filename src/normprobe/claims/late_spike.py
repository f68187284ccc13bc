"""Claim 1: the reasoning features rise in the last quarter of layers (arXiv 2606.06188, SAE activation by layer).

Estimand. D_l = Σ_{i∈I} (z̄_i in think − z̄_i in no_think) and G_l = Σ_{i∈I} (z̄_i in think + z̄_i in no_think), both
divided by the mean norm of layer l, since codes scale with the state and the state grows with depth. The rise is

    (mean D, last quarter − mean D, middle half) / (mean G, last quarter + mean G, middle half),

in [−1, 1]. It depends neither on the size of the dictionary nor on the number of features selected, so trained,
untrained and matched sets compare; where D = G it is tanh(½ log(late / middle)). Hence the matched features may be
fewer where I is more than half of a dictionary. Twin and early checkpoint read as many features as the model all the
same: those that the selection rule finds in them are few or none, and a sum of none rises by exactly 0, which any model
meets. A set that never fires has no rise.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import ESTIMATE, Form, control
from normprobe.claims.measure.contrast import Contrast
from normprobe.claims.measure.drawing import CONTROL, curve, layer_axis, legend_below, pick
from normprobe.claims.measure.measured_tokens import MeasuredTokens, NotMeasurable, late_layers, middle_layers
from normprobe.claims.measure.readers import (
    AS_MANY,
    EARLY,
    FILLER,
    MODEL,
    READER_NAMES,
    TWIN,
    null_subjects,
    readable,
    rules_out,
    unread,
)
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, tidy
from normprobe.runs.tables import Tables
from normprobe.style import GREY, READER_LINES

SMALLEST_EFFECT = 0.1
RULE = (
    "Rise = (ΣΔz per unit norm in the last quarter of layers − in the middle half) / gross activation "
    "there. Margin = rise − the largest of 0, untrained twin, filler instead of a thought, matched "
    "non-reasoning features and (where the run has one) early checkpoint. Supported if the 95 % interval of "
    f"the margin lies above {SMALLEST_EFFECT}, not supported if below, else inconclusive; inconclusive if a "
    f"control cannot be computed. {AS_MANY}"
)
MATCHED = "matched non-reasoning features"
PER_NORM = "per unit norm"
ANSWERS = "identical answer tokens"


def _contrast(
    measured: MeasuredTokens,
    weights: Float[np.ndarray, "draw problem"],
    masks: tuple[Bool[np.ndarray, " token"], Bool[np.ndarray, " token"]],
    reader: str = "model",
    features: str = "z_reasoning",
) -> Contrast:
    """Thinking and not, by the masks of their tokens."""
    tables = measured.tables
    z, norm = tables.z(reader)[features], tables.signals(reader)["norm"][tables.layers(reader)]
    z_high, z_low = (average(weights, measured.means(z, mask)) for mask in masks)
    n_high, n_low = (average(weights, measured.means(norm, mask)) for mask in masks)
    fires = bool(measured.pick(z, np.ones(len(measured.tokens), dtype=bool)).any())
    return Contrast.of(z_high, z_low, n_high, n_low, fires=fires)


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the rise; the series hold ΣΔz by layer, raw and per unit norm, for every control.

    Raises NotMeasurable for too few problems, or dictionaries that leave out the middle or the last quarter of layers.
    """
    layers, depth = tables.layers("model"), len(tables.signals("model")["norm"])
    late, middle = late_layers(layers, depth), middle_layers(layers, depth)
    if not late or not middle:
        raise NotMeasurable("it needs dictionaries in the middle half and in the last quarter of layers")
    measured = MeasuredTokens(tables, ["think", "no_think"])
    weights = resample(measured.n_problems)
    contrast = partial(_contrast, measured, weights)

    think, no_think, filler = (measured.where(mode) for mode in ("think", "no_think", "filler"))
    answers = measured.identical_answers("think")
    model = contrast((think, no_think))
    controls: dict[str, Contrast | None] = {
        READER_NAMES[reader]: contrast((think, no_think), reader) if readable(tables, reader) else None
        for reader in null_subjects(tables)
    }
    controls[FILLER] = contrast((filler, no_think)) if filler.any() else None
    controls[MATCHED] = contrast((think, no_think), features="z_matched")
    second = contrast(answers) if answers[0].any() else None

    estimate = model.rise(late, middle)
    rises = {name: features and features.rise(late, middle) for name, features in controls.items()}
    shown = {
        name: {"raw": found.raw, PER_NORM: found.difference}
        for name, found in {MODEL: model, **controls, ANSWERS: second}.items()
        if found
    }
    return Measurement(
        forms={"": Form(estimate, rises)},
        n=measured.n_problems,
        note=_note(model.raw[0, middle].mean(), model.raw[0, late].mean(), estimate, rises),
        series=pd.concat(tidy(shown, layers, names_first=True), ignore_index=True),
        further=[control(ANSWERS, MODEL, second and second.rise(late, middle))],
        lacking=dict.fromkeys((ESTIMATE, MATCHED), "none of its features fires") | unread(tables),
    )


def _note(middle: float, late: float, rise: Draws, controls: dict[str, Draws | None]) -> str:
    return (
        f"From the middle half to the last quarter of layers the raw ΣΔz goes from {middle:.3g} "
        f"to {late:.3g}; with the growth of the norm undone, the rise is {as_text(rise)} of the "
        f"features' gross activation. An untrained network gives {as_text(controls[TWIN])}, "
        f"filler instead of a thought {as_text(controls[FILLER])}, matched non-reasoning features "
        f"{as_text(controls[MATCHED])}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """Reasoning-feature activation by layer (ΣΔz per unit norm), controls in grey; the last quarter is shaded."""
    layer_axis(axes, series, evidence)
    axes.axhline(0.0, color=GREY, linewidth=0.6)
    curve(axes, pick(series, PER_NORM, MODEL), "reasoning features", **READER_LINES["model"])
    lines = {TWIN: "--", EARLY: "-.", FILLER: ":", MATCHED: (0, (1, 3))}
    for name, dashes in lines.items():
        curve(axes, pick(series, PER_NORM, name), name, linestyle=dashes, **CONTROL)
    axes.set_ylabel("ΣΔz per unit norm\n(think − no_think)")
    legend_below(axes)


CLAIM = Claim(
    order=1,
    name="late_spike",
    version=2,
    title="Do reasoning features rise in the last quarter of the layers?",
    statement="When the model thinks, its reasoning features rise sharply in the last quarter of layers.",
    caption=(
        "Summed activation of the reasoning features by layer, think minus no_think, divided by the layer's mean norm "
        "(codes scale with the state, and the state grows with depth). Grey: the controls. Bands: 95 % intervals. "
        "Shaded: the last quarter of the layers."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model", "dictionary", "z/model"}),
    unit="rise of ΣΔz per unit norm, share of gross activation",
    measured="the rise of the reasoning features in the last quarter of layers, as a share of their activation,",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest=(
        "A late level half as high again as the middle, in features three times as active in thinking as without, "
        "gives 0.1."
    ),
    rules_out=rules_out(TWIN, FILLER, EARLY)
    | {MATCHED: "a rise that all features have: as many others of the same dictionary, about as active"},
    measure=measure,
    panel=panel,
    figure="fig_01_reasoning_features",
    planted="reasoning",
)
