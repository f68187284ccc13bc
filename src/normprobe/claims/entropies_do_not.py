"""Claim 2, the contrast: hidden, output and attention entropy follow the reasoning features less than the norm does.

Estimand, on the footing of `norm_tracks_features`: for each signal ρ with Σ_{i∈I} z_i within one layer over a
problem's tokens, averaged over problems (with its sign), then |ρ| averaged over layers; the lead is the
norm's |ρ| minus the best entropy's. (Resampling pushes a |ρ| near 0 up, of all signals alike.) The hidden entropy
competes in three forms, since that of softmax(h) falls with the scale of h and so repeats the norm: softmax(h),
softmax(√d·h/‖h‖) and h²/‖h‖² (which of them arXiv 2606.06188 used is not known to us).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.drawing import legend_below
from normprobe.claims.evidence import Evidence
from normprobe.claims.judgement import (
    ARM_NAMES,
    Draws,
    Form,
    average,
    beside,
    interval,
    judge,
    null_arms,
    resamplings,
    row,
    said,
    series,
    source_of,
)
from normprobe.claims.measured import Measured, correlation_within, ranks_within
from normprobe.claims.tables import Tables
from normprobe.stats.correlation import spearman
from normprobe.style import GREY, SOURCE_COLOURS, source_line

NAME = "entropies_do_not"
STATEMENT = "Hidden, output and attention entropy track the reasoning features less than the norm does."
NEEDS = frozenset({"tokens", "signals/model", "dictionary", "z/model"})
# Half of the smallest lead in the paper's table (85.2 against 63.3, ×100).
SMALLEST_EFFECT = 0.1
RULE = (
    "Lead = |ρ| of the norm − |ρ| of the best entropy (hidden in three forms, output, attention), "
    "Spearman's ρ with Σ z of the reasoning features within a layer over a problem's tokens, mean over "
    "layers. Margin = lead − the largest of 0 and the lead in the untrained twin, with a random dictionary "
    "and (where the run has one) in the early checkpoint. Supported if the 95 % interval of the margin lies "
    f"above {SMALLEST_EFFECT}, not supported if below, else inconclusive; inconclusive if an entropy or a "
    "control cannot be computed."
)
SIGNALS = {
    "norm": "norm",
    "entropy_softmax": "hidden entropy, softmax(h)",
    "entropy_rms": "hidden entropy, unit scale",
    "entropy_energy": "hidden entropy, h²/‖h‖²",
    "output_entropy": "output entropy",
    "attention_entropy": "attention entropy",
}
ENTROPIES = tuple(signal for signal in SIGNALS if signal != "norm")
_ByLayer = dict[str, Float[np.ndarray, "draw layer"]]


def _within(
    tables: Tables, arm: str, measured: Measured, mask: Bool[np.ndarray, " token"], weights: np.ndarray
) -> _ByLayer:
    """ρ of every signal that the arm has, by layer."""
    problem, layers, signals = measured.problem[mask], tables.layers(arm), tables.signals(source_of(arm))

    def ranks(values: Float[np.ndarray, "layer run_token"]) -> Float[np.ndarray, "layer token"]:
        return ranks_within(measured.pick(values, mask), problem)

    z = ranks(tables.z(arm)["z_reasoning"])
    return {
        signal: average(
            weights, correlation_within(ranks(signals[signal][layers]), z, problem, measured.n_problems)
        )
        for signal in SIGNALS
        if signal in signals
    }


def _strength(rho: _ByLayer) -> dict[str, Draws]:
    """|ρ| of each signal, mean over layers."""
    return {signal: np.abs(values).mean(axis=1) for signal, values in rho.items()}


def _lead(strength: dict[str, Draws]) -> Draws:
    """The norm's |ρ| over the best entropy's, the best found anew in every draw."""
    return strength["norm"] - np.maximum.reduce(
        [strength[entropy] for entropy in ENTROPIES if entropy in strength]
    )


def _layerwise(tables: Tables, measured: Measured, weights: np.ndarray) -> dict[str, Draws]:
    """The paper's form on this model: ρ over layers of a signal's gap (think − no_think) with ΣΔz."""
    layers, signals = tables.layers("model"), tables.signals("model")

    def gap(values: Float[np.ndarray, "layer run_token"]) -> Float[np.ndarray, "draw layer"]:
        think, no_think = (
            average(weights, measured.means(values, measured.where(m))) for m in ("think", "no_think")
        )
        return think - no_think

    rise = gap(tables.z("model")["z_reasoning"])
    return {signal: spearman(gap(signals[signal][layers]), rise) for signal in SIGNALS if signal in signals}


def evaluate(tables: Tables, rng: np.random.Generator, seed: int) -> tuple[Evidence, pd.DataFrame]:
    """Judge the claim on the measurement split; the series hold ρ by signal, arm and layer, |ρ| over layers (layer −1),
    and the paper's layer-wise form. Raises NotJudged for too few problems answered in both modes.
    """
    measured = Measured(tables, ["think", "no_think"])
    weights = resamplings(rng, measured.n_problems)
    responses = measured.where("think") | measured.where("no_think")
    arms = ["model", *null_arms(tables)]
    known = [arm for arm in arms if tables.has(f"signals/{source_of(arm)}") and tables.has(f"z/{arm}")]
    rho = {arm: _within(tables, arm, measured, responses, weights) for arm in known}
    strength = {arm: _strength(values) for arm, values in rho.items()}
    lead = _lead(strength["model"])
    controls = {
        ARM_NAMES[arm]: _lead(strength[arm]) if arm in known else None for arm in arms if arm != "model"
    }
    lacking = {SIGNALS[entropy]: None for entropy in ENTROPIES if entropy not in strength["model"]}
    verdict, decision = judge({"": Form(lead, controls | lacking)}, null=0.0, smallest_effect=SMALLEST_EFFECT)
    evidence = Evidence(
        claim=NAME,
        statement=STATEMENT,
        verdict=verdict,
        rule=RULE,
        estimate=float(lead[0]),
        unit="lead of the norm in |Spearman ρ| within a layer over tokens",
        interval=interval(lead),
        n=measured.n_problems,
        n_unit="problems",
        controls=(
            *(beside(f"lead, {name}", draws) for name, draws in controls.items()),
            *(beside(f"|ρ|, {name}", strength["model"].get(signal)) for signal, name in SIGNALS.items()),
        ),
        decision=decision,
        seed=seed,
        note=_note(strength["model"], lead, controls),
    )
    frames = [
        series(signal, ARM_NAMES[arm], values, tables.layers(arm))
        for arm in known
        for signal, values in rho[arm].items()
    ]
    frames += [row(signal, ARM_NAMES[arm], draws) for arm in known for signal, draws in strength[arm].items()]
    frames += [
        row(f"layer-wise, {signal}", ARM_NAMES["model"], draws)
        for signal, draws in _layerwise(tables, measured, weights).items()
    ]
    return evidence, pd.concat(frames, ignore_index=True)


def _note(strength: dict[str, Draws], lead: Draws, controls: dict[str, Draws | None]) -> str:
    best = max(
        (entropy for entropy in ENTROPIES if entropy in strength), key=lambda entropy: strength[entropy][0]
    )
    order = "more" if lead[0] > 0 else "less"
    return (
        f"Within a layer the norm follows the reasoning features with |ρ| = {strength['norm'][0]:.2f}, "
        f"{order} than the best entropy ({SIGNALS[best]}, {strength[best][0]:.2f}): a lead of {said(lead)}. "
        f"In an untrained network the lead is {said(controls[ARM_NAMES['untrained']])}, with a random "
        f"dictionary {said(controls[ARM_NAMES['random']])}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """|ρ| of every signal in this model (filled), beside its nulls (grey, open)."""
    means = series[(series["layer"] < 0) & series["quantity"].isin(list(SIGNALS))]
    signals = [signal for signal in SIGNALS if signal in set(means["quantity"])]
    heights = dict(zip(signals, range(len(signals), 0, -1), strict=True))
    arms = [arm for arm in ARM_NAMES if ARM_NAMES[arm] in set(means["arm"])]
    for place, arm in enumerate(arms):
        shown = means[means["arm"] == ARM_NAMES[arm]]
        height = shown["quantity"].map(heights) + 0.25 - 0.5 * place / max(len(arms) - 1, 1)
        colour = SOURCE_COLOURS["model"] if arm == "model" else GREY
        axes.hlines(height, shown["low"], shown["high"], color=colour, linewidth=1.0)
        axes.plot(
            shown["estimate"], height, color=colour, marker=source_line(arm)["marker"], linestyle="none",
            markerfacecolor=colour if arm == "model" else "white", label=ARM_NAMES[arm],
        )  # fmt: skip
    axes.set_yticks(list(heights.values()), [SIGNALS[signal] for signal in signals])
    axes.set_xlim(left=0.0)
    axes.set_ylim(0.4, len(signals) + 0.6)
    axes.set_xlabel(f"|Spearman ρ| with reasoning features (n = {evidence.n} {evidence.n_unit})")
    legend_below(axes, columns=2)
