"""Claim 2, second half: the norm follows the activation of the reasoning features (arXiv 2606.06188, Spearman table).

The paper correlates over layers: the gap of the mean norms with ΣΔz. That is reported, and decides nothing: the norm
grows with depth, codes scale with the state, and so untrained networks with random dictionaries reach 0.7 to 0.9.

Estimand: Spearman's ρ of ‖h‖ and Σ_{i∈I} z_i within one layer, over the tokens of one problem's responses (think and
no_think together), averaged over layers and problems. Depth cannot enter it, nor can differences between problems.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.drawing import forest, pick
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
from normprobe.stats.correlation import partial_spearman, spearman
from normprobe.style import GREY, source_line

NAME = "norm_tracks_features"
STATEMENT = "The norm of the hidden state tracks the activation of the reasoning features."
NEEDS = frozenset({"tokens", "signals/model", "dictionary", "z/model"})
# Below a tenth the norm would tell less than 1 % of the variance of the features' ranks.
SMALLEST_EFFECT = 0.1
RULE = (
    "ρ = Spearman's correlation of the norm and Σ z of the reasoning features within a layer over a "
    "problem's tokens, mean over layers and problems. Margin = ρ − the largest of 0, untrained twin, random "
    "dictionary and (where the run has one) early checkpoint. Supported if the 95 % interval of the margin "
    f"lies above {SMALLEST_EFFECT}, not supported if below, else inconclusive; inconclusive if a control "
    "cannot be computed. The paper's layer-wise ρ is shown and does not count."
)
MODEL = ARM_NAMES["model"]
LAYERWISE, NO_SCALE, NO_DEPTH = (
    "layer-wise ρ",
    "layer-wise ρ, per-layer scale removed",
    "layer-wise ρ, depth partialled out",
)
NO_SINKS = "sinks excluded"


def _within(
    tables: Tables, arm: str, measured: Measured, mask: Bool[np.ndarray, " token"], weights: np.ndarray
) -> Float[np.ndarray, "draw layer"]:
    """The estimand before it is averaged over layers."""
    norm = tables.signals(source_of(arm))["norm"][tables.layers(arm)]
    problem = measured.problem[mask]
    norm, z = (
        ranks_within(measured.pick(values, mask), problem) for values in (norm, tables.z(arm)["z_reasoning"])
    )
    return average(weights, correlation_within(norm, z, problem, measured.n_problems))


def _layerwise(tables: Tables, arm: str, measured: Measured, weights: np.ndarray) -> dict[str, Draws]:
    """The paper's ρ over layers, of the gap in norm with ΣΔz; raw, per unit norm of each layer, and given depth."""
    layers = tables.layers(arm)
    norm, z = tables.signals(source_of(arm))["norm"][layers], tables.z(arm)["z_reasoning"]
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


def evaluate(tables: Tables, rng: np.random.Generator, seed: int) -> tuple[Evidence, pd.DataFrame]:
    """Judge the claim on the measurement split; the series hold ρ by layer and arm, the layer-wise forms at −1.

    Raises NotJudged for too few problems answered in both modes.
    """
    measured = Measured(tables, ["think", "no_think"])
    weights = resamplings(rng, measured.n_problems)
    responses = measured.where("think") | measured.where("no_think")
    arms = ["model", *null_arms(tables)]
    known = [arm for arm in arms if tables.has(f"signals/{source_of(arm)}") and tables.has(f"z/{arm}")]
    by_layer = {arm: _within(tables, arm, measured, responses, weights) for arm in known}
    layerwise = {arm: _layerwise(tables, arm, measured, weights) for arm in known}
    no_sinks = _within(
        tables, "model", measured, responses & ~measured.tokens["sink"].to_numpy(dtype=bool), weights
    )

    within = {arm: by_layer[arm].mean(axis=1) if arm in known else None for arm in arms}
    estimate = by_layer["model"].mean(axis=1)
    controls = {ARM_NAMES[arm]: within[arm] for arm in arms if arm != "model"}
    verdict, decision = judge({"": Form(estimate, controls)}, null=0.0, smallest_effect=SMALLEST_EFFECT)
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
            *(beside(name, draws) for name, draws in controls.items()),
            beside(NO_SINKS, no_sinks.mean(axis=1)),
            *(beside(f"{LAYERWISE}: {ARM_NAMES[arm]}", layerwise[arm][LAYERWISE]) for arm in known),
            *(beside(form, layerwise["model"][form]) for form in (NO_SCALE, NO_DEPTH)),
        ),
        decision=decision,
        seed=seed,
        note=_note(within, layerwise),
    )
    frames = [
        series("within", ARM_NAMES[arm], values, tables.layers(arm)) for arm, values in by_layer.items()
    ]
    frames += [row("within, mean", ARM_NAMES[arm], values.mean(axis=1)) for arm, values in by_layer.items()]
    frames += [
        row(form, ARM_NAMES[arm], draws) for arm, forms in layerwise.items() for form, draws in forms.items()
    ]
    return evidence, pd.concat(frames, ignore_index=True)


def _note(within: dict[str, Draws | None], layerwise: dict[str, dict[str, Draws]]) -> str:
    naive = {arm: float(forms[LAYERWISE][0]) for arm, forms in layerwise.items()}
    nulls = [f"{value:.2f} ({ARM_NAMES[arm]})" for arm, value in naive.items() if arm != "model"]
    return (
        "Within a layer, from token to token, norm and reasoning features correlate at "
        f"{said(within['model'])}; an untrained network gives {said(within['untrained'])}, a random "
        f"dictionary {said(within['random'])}. The paper's layer-wise ρ is {naive['model']:.2f} here, "
        f"against {', '.join(nulls) or 'no null that could be computed'}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """ρ within a layer (decides) above the paper's layer-wise ρ at its deceptive height, each with its nulls."""
    rows = []
    for quantity, title in (("within, mean", "within layer"), (LAYERWISE, "layer-wise")):
        for arm, name in ARM_NAMES.items():
            style = source_line(arm) if arm == "model" else {**source_line(arm), "color": GREY}
            rows.append((f"{title}: {name}", pick(series, quantity, name), style))
    for form in (NO_SCALE, NO_DEPTH):
        rows.append((form.replace(" ρ", ""), pick(series, form, MODEL), source_line("model")))
    forest(axes, rows, evidence)
    axes.axvline(0.0, color=GREY, linewidth=0.6)
    axes.set_xlabel("Spearman ρ with reasoning features (95 % intervals)")
