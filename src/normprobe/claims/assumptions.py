"""Claim 4: the theorem's assumptions A1-A4 hold (arXiv 2606.06188, section 3 and its assumption table).

The paper's "mean |cos| < 0.02" (A1) is a statement about width: random directions have sqrt(2/(pi d)), 0.0176 at d =
2048 but 0.07 at d = 128. So the threshold is the multiple of that baseline that 0.02 is for the narrowest model of the
paper (d = 2048). R² (A2) is taken over tokens; the ε of the theorem is that of mean states. A3 is a mean over problems
of the larger of both modes. A layer without reasoning features has nothing that could hold: it counts as failing. A
random dictionary of the same shape must fail where the model passes; A1 alone is the same for both. It reads as many
features as the model, or it would fail, or pass, for having none.

A problem in which no reasoning feature is active has no R: its |cos(B, R)| and its overlap were 0 and passed at once.
It is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.bound_inputs import BoundInputs, read_bound_inputs, shared_problems
from normprobe.claims.measure.measured_tokens import require
from normprobe.claims.measure.readers import (
    AS_MANY,
    RANDOM,
    READER_NAMES,
    fewer_features,
    of_layers,
    rules_out,
    unread,
)
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average
from normprobe.runs.layout import READERS
from normprobe.runs.tables import Tables
from normprobe.stats.bootstrap import percentile_interval
from normprobe.style import GREEN, GREY, VERMILION
from normprobe.theory.constants import ratio
from normprobe.theory.orthogonality import random_baseline, welch_bound

A1_MULTIPLE = 0.02 / random_baseline(2048)
SMALLEST_EFFECT = 0.9
RULE = (
    f"Share of layers in which all hold: A1 mean |cos| < {A1_MULTIPLE:.2f} × sqrt(2/(pi d)), which is 0.02 at "
    "d = 2048; A2 R² > 0.95; A3 mean |cos(B, R)| < 0.1; A4 mean overlap < 3 %. Margin = share − that of a random "
    f"dictionary of the same shape. Supported if the 95 % interval of the margin lies above {SMALLEST_EFFECT}, not "
    "supported if below, else inconclusive; inconclusive without the random dictionary. A3 and A4 are means over the "
    f"problems in which a reasoning feature is active. {AS_MANY}"
)


@dataclass(frozen=True)
class _Check:
    """A measured quantity with its threshold, values [draw, layer]; those that do not decide are shown."""

    assumption: str
    quantity: str
    values: np.ndarray
    threshold: float
    decides: bool
    above: bool = False

    @property
    def passes(self) -> np.ndarray:
        return self.values > self.threshold if self.above else self.values < self.threshold


def _checks(tables: Tables, reader: str, inputs: BoundInputs, weights: np.ndarray) -> list[_Check]:
    def fixed(column: str) -> np.ndarray:
        """What belongs to the dictionary and is the same in every draw (R² too: it averages thousands of tokens)."""
        return np.tile(of_layers(tables, reader, column), (len(weights), 1))

    d, width = (int(of_layers(tables, reader, column)[0]) for column in ("d", "width"))
    welch = welch_bound(width, d)
    constants = inputs.constants
    # Without an active feature there is nothing that could be separate or disentangled: NaN, which passes nothing.
    active = np.where(inputs.a + inputs.b > 0, 1.0, np.nan)
    of_inputs = (
        constants.epsilon,
        constants.kappa,
        *(active * values for values in (constants.delta, inputs.overlap, inputs.a, inputs.b)),
    )
    epsilon, kappa, delta, overlap, a, b = (average(weights, values) for values in of_inputs)
    cos = fixed("mean_abs_cos")
    return [
        _Check("A1", "mean |cos| ÷ sqrt(2/(pi d))", cos / random_baseline(d), A1_MULTIPLE, True),
        _Check("A1", "mean |cos|", cos, 0.02, False),
        _Check("A1", f"max |cos| (Welch bound {welch:.3f})", fixed("max_abs_cos"), 0.02, False),
        _Check("A2", "R²", fixed("r2"), 0.95, True, above=True),
        _Check("A2", "ε of mean states", epsilon, 0.05, False),
        _Check("A2", "mean ‖r‖/‖h‖ over tokens", fixed("eps_mean"), 0.05, False),
        _Check("A3", "|cos(B, R)|", delta, 0.1, True),
        _Check("A4", "overlap of active features", overlap, 0.03, True),
        _Check("A4", "leakage ρ", ratio(b, a), 0.03, False),
        _Check("A4", "drift κ", kappa, 0.03, False),
    ]


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the share; the series hold a row per quantity, layer and reader, its threshold and whether it passes.

    Raises NotMeasurable for too few problems.
    """
    there = [reader for reader in READERS if tables.layers(reader)]
    readers = [reader for reader in there if not fewer_features(tables, reader)]
    problems = shared_problems(tables, readers)
    require(len(problems))
    weights = resample(len(problems))
    checks = {
        reader: _checks(tables, reader, read_bound_inputs(tables, reader, problems), weights)
        for reader in readers
    }
    shares: dict[str, Draws] = {
        reader: np.logical_and.reduce([check.passes for check in of if check.decides]).mean(axis=1)
        for reader, of in checks.items()
    }
    others = [reader for reader in readers if reader not in ("model", "random")]
    return Measurement(
        forms={"": Form(shares["model"], {RANDOM: shares.get("random")})},
        n=len(problems),
        note=_note(tables, checks),
        series=pd.concat([_series(tables, reader, checks[reader]) for reader in readers], ignore_index=True),
        further=[control("", READER_NAMES[reader], shares[reader]) for reader in others],
        lacking=unread(tables),
    )


def _series(tables: Tables, reader: str, checks: list[_Check]) -> pd.DataFrame:
    frames = []
    for check in checks:
        low, high = percentile_interval(check.values[1:])
        columns = {
            "assumption": check.assumption,
            "quantity": check.quantity,
            "reader": reader,
            "layer": tables.layers(reader),
            "value": check.values[0],
            "low": low,
            "high": high,
            "threshold": check.threshold,
            "direction": ">" if check.above else "<",
            "passes": check.passes[0],
            "decides": check.decides,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _note(tables: Tables, checks: dict[str, list[_Check]]) -> str:
    def shares(reader: str) -> str:
        deciding = (check for check in checks[reader] if check.decides)
        return ", ".join(f"{check.assumption} {check.passes[0].mean():.0%}" for check in deciding)

    text = f"Layers in which each holds: {shares('model')}. "
    if "random" in checks:
        text += f"A random dictionary of the same shape: {shares('random')}. "
        model, random = (of_layers(tables, reader, "mean_abs_cos").mean() for reader in ("model", "random"))
        better = "closer to orthogonal than random directions"
        if model >= random:
            better = f"no {better}, so A1 says nothing about training"
        text += f"Mean |cos| is {model:.4f} against {random:.4f} at random: {better}. "
    empty = int((of_layers(tables, "model", "n_selected") == 0).sum())
    if empty:
        text += f"Layers without reasoning features, which count as failing: {empty}. "
    others = {check.quantity: check.values.mean(axis=1) for check in checks["model"] if not check.decides}
    return text + (
        f"Not deciding, averaged over layers: ε {as_text(others['ε of mean states'])}, "
        f"ρ {as_text(others['leakage ρ'])}, κ {as_text(others['drift κ'])}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """A strip per deciding quantity, a mark per layer: ● holds, × fails; the random dictionary in grey below each."""
    deciding = series[series["decides"]]
    names, heights = [], []
    for index, (quantity, rows) in enumerate(deciding.groupby("quantity", sort=False)):
        for offset, reader in enumerate(("model", "random")):
            mine = rows[rows["reader"] == reader]
            if mine.empty:
                continue
            height = -index - 0.38 * offset
            holds = mine["passes"].to_numpy(dtype=bool)
            for mask, marker, own in ((holds, "o", GREEN), (~holds, "x", VERMILION)):
                colour, layers = own if reader == "model" else GREY, mine["layer"][mask]
                axes.plot(layers, np.full(len(layers), height), marker, color=colour, markersize=4)
            first = mine.iloc[0]
            span = f"{mine['value'].min():.3g} to {mine['value'].max():.3g}"
            label = f"{first['assumption']} {quantity} {first['direction']} {first['threshold']:.3g}"
            names.append(f"{label}\nis {span}" if reader == "model" else f"random: {span}")
            heights.append(height)
    axes.set_yticks(heights, names)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(min(heights) - 0.4, 0.5)
    axes.set_xlabel(f"layer (● holds, × fails; n = {evidence.n} {evidence.n_unit})")


CLAIM = Claim(
    order=5,
    name="assumptions",
    version=2,
    title="Do the theorem's assumptions hold?",
    statement=(
        "The theorem's assumptions A1-A4 hold: orthogonality, reconstruction, separation, disentanglement."
    ),
    caption=(
        "Each assumption at its threshold, layer by layer: ● holds, × fails. Grey, below each: a random dictionary of "
        "the same shape."
    ),
    rule=RULE,
    needs=frozenset({"sums", "pairs", "dictionary"}),
    modes=frozenset({"think", "no_think"}),
    unit="share of layers in which A1-A4 all hold",
    measured="the share of layers in which all four assumptions hold",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest="That the assumptions hold is a universal statement; one layer in ten may stray.",
    rules_out=rules_out(RANDOM),
    measure=measure,
    panel=panel,
    figure="fig_05_assumptions",
    planted="reasoning",
)
