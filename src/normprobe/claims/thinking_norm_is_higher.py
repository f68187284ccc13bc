"""Claim 2, first half: the norm is higher in thinking, layer by layer (arXiv 2606.06188, norm by layer).

The gap is a logarithm, so that late layers with their large norms do not drown the others. Whole responses hold
different tokens, and a token's identity alone moves its norm: hence the answer tokens that both modes wrote.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form
from normprobe.claims.measure.drawing import curve, layer_axis, pick
from normprobe.claims.measure.measured_tokens import MeasuredTokens
from normprobe.claims.measure.readers import FILLER, MODEL, READER_NAMES, TWIN, null_subjects
from normprobe.claims.measure.resampling import Draws, Resampling, average, over_layers, tidy
from normprobe.runs.tables import Tables
from normprobe.style import MODE_LINES

# 5 %: a smaller gap could not be read off the paper's figure, and no threshold at Q3 + 1.5 IQR would notice it.
SMALLEST_EFFECT = 0.05
RULE = (
    "Gap = mean over layers of log(mean norm think / no_think). In each of three forms (whole responses, "
    "identical answer tokens, sinks excluded) margin = gap − the largest of 0, untrained twin, filler "
    "instead of a thought and (where the run has one) early checkpoint. Supported if the 95 % interval of "
    f"the smallest of the three margins lies above {SMALLEST_EFFECT}, not supported if below, else "
    "inconclusive; inconclusive if a control cannot be computed."
)
WHOLE, ANSWERS, NO_SINKS = "whole responses", "identical answer tokens", "sinks excluded"
MODES = ("think", "no_think", "filler")
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


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the gap in three forms; the series hold norms by layer and mode, gaps by layer and form.

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
    means = {form: over_layers(named) for form, named in gaps.items()}
    whole = gaps[WHOLE][MODEL]
    assert whole is not None  # the measured problems were answered in both modes
    shown: dict[str, dict[str, np.ndarray | None]] = {
        f"norm, {mode}": {MODEL: norms("model", mask)}
        for mode in MODES
        if (mask := measured.where(mode)).any()
    }
    shown |= {f"log ratio, {form}": {**named} for form, named in gaps.items()}
    layers = range(len(tables.signals("model")["norm"]))
    return Measurement(
        form=WHOLE,
        forms={form: Form.of(named) for form, named in means.items()},
        n=measured.n_problems,
        note=_note(whole[0], means),
        series=pd.concat(tidy(shown, layers), ignore_index=True),
    )


def _note(gap: Float[np.ndarray, " layer"], means: dict[str, dict[str, Draws | None]]) -> str:
    return (
        f"On whole responses the norm in thinking is {_times(means[WHOLE][MODEL])} that without, and higher "
        f"in {(gap > 0).sum()} of {len(gap)} layers; on the answer tokens that both modes wrote it is "
        f"{_times(means[ANSWERS][MODEL])}. An untrained network gives "
        f"{_times(means[WHOLE][TWIN])} on whole responses, filler instead of a thought "
        f"{_times(means[WHOLE][FILLER])}."
    )


def _times(draws: Draws | None) -> str:
    return "(not computed)" if draws is None else f"{np.exp(draws[0]):.2f} times"


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """The mean norm by layer in each mode, whole responses; the ratio, and that of the untrained twin, in words."""
    from matplotlib.ticker import LogFormatter

    layer_axis(axes, series, evidence)
    for mode in MODES:
        curve(axes, pick(series, f"norm, {mode}", MODEL), mode, **MODE_LINES[mode])
    axes.set_yscale("log")
    for format_ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        format_ticks(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.set_ylabel("mean ‖h‖₂ over the response (activation units)")
    axes.legend(loc="upper left")
    twin = next(control for control in evidence.own_controls if control.name == TWIN)
    ratios = f"think / no_think: {np.exp(evidence.estimate):.2f}; untrained twin: {np.exp(twin.estimate):.2f}"
    axes.text(0.98, 0.03, ratios, transform=axes.transAxes, ha="right", fontsize=7)


CLAIM = Claim(
    order=2,
    name="thinking_norm_is_higher",
    title="Is the norm higher when the model thinks?",
    statement=(
        "The norm of the hidden state is higher when the model thinks than when it does not, layer by layer."
    ),
    caption=(
        "Mean norm over whole responses by layer in each mode, on a logarithmic axis. Bands: 95 % intervals. Shaded: "
        "the last quarter of the layers."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model"}),
    unit="log ratio of mean norms, think to no_think, mean over layers",
    smallest_effect=SMALLEST_EFFECT,
    measure=measure,
    panel=panel,
    figure="fig_02_norm_by_layer",
    planted="reasoning",
)
