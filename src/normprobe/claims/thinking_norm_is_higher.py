"""Claim 2, first half: the norm is higher in thinking, layer by layer, and most so late (arXiv 2606.06188, norm by
layer).

The gap is a logarithm, so that late layers with their large norms do not drown the others. Whole responses hold
different tokens, and a token's identity alone moves its norm: hence the answer tokens that both modes wrote.

The paper says more of the curve than that its mean is higher: thinking is higher in every layer, and the curve is
stable and then rises sharply in the last quarter. A mean over layers can have one sign while most layers have the
other, so both are forms of their own. The share of layers in which thinking is higher decides as the gap that nine
layers of ten exceed ("every" with one layer in ten allowed to stray, as in `assumptions`): that share is nine in ten or
more where this is above 0. So all forms are logarithms and one smallest effect serves them.

The norm after the last block never reaches the logits (the final norm divides it out), and the reference code leaves
the block out of its last quarter. One layer of twelve moves a mean, so every form is taken without it and with it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.drawing import curve, layer_axis, logarithmic, pick
from normprobe.claims.measure.measured_tokens import MeasuredTokens, late_layers, middle_layers
from normprobe.claims.measure.readers import (
    EARLY,
    FILLER,
    MODEL,
    READER_NAMES,
    TWIN,
    null_subjects,
    rules_out,
)
from normprobe.claims.measure.resampling import Draws, Resampling, average, tidy
from normprobe.runs.tables import Tables
from normprobe.style import MODE_LINES

SMALLEST_EFFECT = 0.05
RULE = (
    "Gap of a layer = log(mean norm think / no_think). Over layers: its mean; the gap that nine layers of ten "
    "exceed; its rise, the mean of the last quarter − that of the middle half. Each on three sets of tokens (whole "
    "responses, identical answer tokens, sinks excluded), without the last block and with it. In each of these 18 "
    "forms margin = the number − the largest of 0, untrained twin, filler instead of a thought and (where the run "
    f"has one) early checkpoint. Supported if the 95 % interval of the smallest margin lies above {SMALLEST_EFFECT}, "
    "not supported if below, else inconclusive; inconclusive if a form or a control cannot be computed. The share "
    "of layers in which the gap is above 0 is shown."
)
WHOLE, ANSWERS, NO_SINKS = "whole responses", "identical answer tokens", "sinks excluded"
MOST, RISE = "nine layers of ten", "last quarter − middle half"
WITH_LAST = "with the last block"
SHARE = "share of layers with a higher norm in thinking"
MODES = ("think", "no_think", "filler")
_Gap = Float[np.ndarray, "draw layer"]
_Masks = tuple[Bool[np.ndarray, " token"], Bool[np.ndarray, " token"]]


def _masks(measured: MeasuredTokens, mode: str) -> dict[str, _Masks]:
    """Per form the tokens of `mode` and those of no_think it is compared with."""
    whole = measured.where(mode), measured.where("no_think")
    sink = measured.tokens["sink"].to_numpy(dtype=bool)
    return {
        WHOLE: whole,
        ANSWERS: measured.identical_answers(mode),
        NO_SINKS: (whole[0] & ~sink, whole[1] & ~sink),
    }


def _over_layers(gap: _Gap | None, last: int) -> dict[str, Draws | None]:
    """What is read off the curve of the layers below `last`; the rise is None where none of them is in the last quarter
    or the middle half."""
    if gap is None or not last:
        return dict.fromkeys(("", MOST, RISE, SHARE))
    depth, layers = gap.shape[1], range(last)
    late, middle = late_layers(layers, depth), middle_layers(layers, depth)
    return {
        "": gap[:, layers].mean(axis=1),
        MOST: np.sort(gap[:, layers], axis=1)[:, last // 10],
        RISE: gap[:, late].mean(axis=1) - gap[:, middle].mean(axis=1) if late and middle else None,
        SHARE: (gap[:, layers] > 0).mean(axis=1),
    }


def _named(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the gap in 18 forms; the series hold norms by layer and mode, and gaps by layer and tokens.

    Raises NotMeasurable for too few problems answered in both modes.
    """
    measured = MeasuredTokens(tables, ["think", "no_think"])
    weights = resample(measured.n_problems)

    def norms(subject: str, mask: Bool[np.ndarray, " token"]) -> Float[np.ndarray, "draw layer"]:
        return average(weights, measured.means(tables.signals(subject)["norm"], mask))

    def gap(subject: str, masks: _Masks) -> Float[np.ndarray, "draw layer"] | None:
        if not (tables.has(f"signals/{subject}") and masks[0].any() and masks[1].any()):
            return None
        return np.log(norms(subject, masks[0]) / norms(subject, masks[1]))

    thinking, filling = _masks(measured, "think"), _masks(measured, "filler")
    gaps = {
        form: {
            MODEL: gap("model", thinking[form]),
            **{READER_NAMES[subject]: gap(subject, thinking[form]) for subject in null_subjects(tables)},
            FILLER: gap("model", filling[form]),
        }
        for form in thinking
    }
    depth = len(tables.signals("model")["norm"])
    forms: dict[str, dict[str, Draws | None]] = {}
    shares = []
    for tokens, (blocks, last) in product(gaps, (("", depth - 1), (WITH_LAST, depth))):
        for name, gaps_of in gaps[tokens].items():
            found = _over_layers(gaps_of, last)
            shares.append(control(_named(tokens, blocks), name, found.pop(SHARE), quantity=SHARE))
            for part, draws in found.items():
                forms.setdefault(_named(tokens, part, blocks), {})[name] = draws
    whole = gaps[WHOLE][MODEL]
    assert whole is not None  # the measured problems were answered in both modes
    shown: dict[str, dict[str, np.ndarray | None]] = {
        f"norm, {mode}": {MODEL: norms("model", mask)}
        for mode in MODES
        if (mask := measured.where(mode)).any()
    }
    shown |= {f"log ratio, {form}": {**named} for form, named in gaps.items()}
    return Measurement(
        form=WHOLE,
        forms={form: Form.of(named) for form, named in forms.items()},
        n=measured.n_problems,
        note=_note(whole[0], forms),
        series=pd.concat(tidy(shown, range(depth)), ignore_index=True),
        further=shares,
    )


def _note(gap: Float[np.ndarray, " layer"], forms: dict[str, dict[str, Draws | None]]) -> str:
    whole, rise = forms[WHOLE], forms[_named(WHOLE, RISE)]
    return (
        f"On whole responses, without the last block, the norm in thinking is {_times(whole[MODEL])} that without "
        f"({_times(forms[_named(WHOLE, WITH_LAST)][MODEL])} with that block), and higher in {(gap[:-1] > 0).sum()} "
        f"of {len(gap) - 1} layers; on the answer tokens that both modes wrote it is "
        f"{_times(forms[ANSWERS][MODEL])}. From the middle half to the last quarter of layers the ratio changes by "
        f"{_times(rise[MODEL])} ({_times(forms[_named(WHOLE, RISE, WITH_LAST)][MODEL])} with the last block), in an "
        f"untrained network by {_times(rise[TWIN])}. An untrained network gives {_times(whole[TWIN])} on whole "
        f"responses, filler instead of a thought {_times(whole[FILLER])}."
    )


def _times(draws: Draws | None) -> str:
    return "(not computed)" if draws is None else f"{np.exp(draws[0]):.2f} times"


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """The mean norm by layer in each mode, whole responses; the ratio but for the last block, with the twin's."""
    layer_axis(axes, series, evidence)
    for mode in MODES:
        curve(axes, pick(series, f"norm, {mode}", MODEL), mode, **MODE_LINES[mode])
    logarithmic(axes)
    axes.set_ylabel("mean ‖h‖₂ over the response\n(activation units)")
    axes.legend(loc="upper left")
    twin = next(control for control in evidence.own_controls if control.name == TWIN)
    ratios = f"think / no_think: {np.exp(evidence.estimate):.2f}; untrained twin: {np.exp(twin.estimate):.2f}"
    axes.text(0.98, 0.03, ratios, transform=axes.transAxes, ha="right", fontsize=7)


CLAIM = Claim(
    order=2,
    name="thinking_norm_is_higher",
    version=2,
    title="Is the norm higher when the model thinks, layer by layer and most so late?",
    statement=(
        "The norm of the hidden state is higher when the model thinks than when it does not, layer by layer, and "
        "most so in the last quarter of layers."
    ),
    caption=(
        "Mean norm over whole responses by layer in each mode, on a logarithmic axis. Bands: 95 % intervals. Shaded: "
        "the last quarter of the layers."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model"}),
    unit="log ratio of mean norms, think to no_think, mean over layers but the last",
    measured="the logarithm of how many times higher the norm is in thinking",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest="Less could not be read off the paper's figure, and no threshold at Q3 + 1.5 IQR would notice it.",
    rules_out=rules_out(TWIN, FILLER, EARLY),
    measure=measure,
    panel=panel,
    figure="fig_02_norm_by_layer",
    planted="reasoning",
)
