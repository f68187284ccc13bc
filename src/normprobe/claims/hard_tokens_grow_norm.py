"""Claim 13: tokens that are hard to predict early in training end with a high norm (arXiv 2606.06188, its reason).

The paper's reason is the gradient of the cross-entropy of the next token k, ∂L/∂h = Σ_j (p_j − 1[j=k]) e_j, large while
p_k ≪ 1. It acts on the state that *predicts* k, one position before it, and so the norm is read there. The norm at the
token's own position, which the words of the claim could also mean, does not decide: the reason says nothing about that
state (it predicts another token), and correlations of neighbours would be taken for it.

States that are sinks are left out. Frequency is that of both tokens, the predicted one and the one the state stands at:
rare words are hard to predict, and frequency alone moves norms. In the frequency-matched form the word the state stands
at keeps its mean: to grow there is a way in which training may raise the states before hard tokens. Growth is measured
since training does not explain a norm that it never raised. A norm that merely forgot where it was early on reverts to
the mean and seems to grow where it was low; the untrained twin in the place of the final model does so too, and is the
control. In the other forms the early checkpoint's own norm is one: the relation must have become closer since. A
problem that the covariates explain whole, or whose norm does not vary, is left out: it has no ρ, not one of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.drawing import CONTROL, curve, layer_axis, legend_below, pick
from normprobe.claims.measure.measured_tokens import MeasuredTokens, late_layers
from normprobe.claims.measure.readers import EARLY, MODEL, READER_NAMES, TWIN, rules_out
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, over_layers, tidy
from normprobe.claims.measure.within_groups import (
    centred_within,
    correlation_within,
    ranks_within,
    residuals_within,
)
from normprobe.runs.tables import Tables
from normprobe.style import GREY, READER_LINES

SMALLEST_EFFECT = 0.1
RULE = (
    "ρ = Spearman's correlation of a token's surprisal in the early checkpoint with the final norm of the state that "
    "predicts it, over a problem's tokens, given position and the frequency of both tokens, mean over problems and the "
    "last quarter of layers. In each of three forms (final norm; frequency-matched: each word's mean taken off both; "
    "growth: final over early norm) margin = ρ − the largest of 0, the untrained twin's norm in the place of the final "
    "model's and (but for growth) the early checkpoint's own norm. Supported if the 95 % interval of the smallest of "
    f"the three margins lies above {SMALLEST_EFFECT}, not supported if below, else inconclusive; inconclusive if a "
    "control cannot be computed. ρ with the norm at the token itself, and given the final model's surprisal too, are "
    "shown and do not count."
)
FINAL, MATCHED, GROWTH = "final norm", "frequency-matched", "growth"
ITSELF, STILL_HARD = "norm at the token itself", "given the final model's surprisal too"
_Tokens = Float[np.ndarray, "_ token"]


def _before(values: Float[np.ndarray, "*layer run_token"]) -> Float[np.ndarray, "*layer run_token"]:
    """The value one row up: at the state that predicts a token. (A response's rows ascend, its first is a prompt's.)"""
    return np.roll(values, 1, axis=-1)


class _Hardness:
    """The measured tokens with a surprisal in the early checkpoint, and its correlation with what a state has."""

    def __init__(self, tables: Tables) -> None:
        self.measured = MeasuredTokens(tables, ["think", "no_think"])
        written = self.measured.where("think") | self.measured.where("no_think")
        everywhere = np.ones_like(written)
        known = np.isfinite(self.measured.pick(tables.signals("early")["surprisal"], everywhere))
        sink = self.measured.pick(_before(tables.tokens["sink"].to_numpy(dtype=float)), everywhere) > 0
        self.mask: Bool[np.ndarray, " token"] = written & known & ~sink
        self.problem = self.measured.problem[self.mask]
        self.word, _ = pd.factorize(self.measured.tokens["token_id"][self.mask])
        state_at, _ = pd.factorize(self._pick(_before(tables.tokens["token_id"].to_numpy(dtype=float)))[0])
        self.surprisal = self.of("early", "surprisal")
        self.given = np.stack(
            [
                self.measured.tokens["position"][self.mask].to_numpy(dtype=float),
                *(np.bincount(word)[word].astype(float) for word in (self.word, state_at)),
            ]
        )

    def _pick(self, values: Float[np.ndarray, "*layer run_token"]) -> _Tokens:
        return np.atleast_2d(self.measured.pick(values, self.mask)).astype(float)

    def of(self, subject: str, signal: str) -> _Tokens:
        """At the token itself."""
        return self._pick(self.measured.tables.signals(subject)[signal])

    def log_norm(self, subject: str) -> _Tokens:
        """At the state that predicts the token."""
        return np.log(self._pick(_before(self.measured.tables.signals(subject)["norm"])))

    def correlation(
        self, values: _Tokens, *more: _Tokens, same_word: bool = False
    ) -> Float[np.ndarray, "problem layer"]:
        """Spearman's ρ of early surprisal and values in each problem, given position, frequencies and `more`."""
        covariates = ranks_within(np.concatenate([self.given, *more]), self.problem)

        def rest(of: _Tokens) -> _Tokens:
            of = centred_within(of, self.word) if same_word else of
            return residuals_within(ranks_within(of, self.problem), covariates, self.problem)

        return correlation_within(rest(self.surprisal), rest(values), self.problem, self.measured.n_problems)


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure ρ; the series hold it by form, subject and layer, and at layer −1 its mean over the last quarter.
    Raises NotMeasurable for too few problems answered in both modes.
    """
    hardness = _Hardness(tables)
    weights = resample(hardness.measured.n_problems)
    subjects = [subject for subject in ("model", "untrained", "early") if tables.has(f"signals/{subject}")]
    norms = {READER_NAMES[subject]: hardness.log_norm(subject) for subject in subjects}
    surprisal = hardness.of("model", "surprisal")
    rho = {
        FINAL: {name: hardness.correlation(norm) for name, norm in norms.items()},
        MATCHED: {name: hardness.correlation(norm, same_word=True) for name, norm in norms.items()},
        GROWTH: {name: hardness.correlation(norms[name] - norms[EARLY]) for name in norms if name != EARLY},
        ITSELF: {READER_NAMES[of]: hardness.correlation(hardness.of(of, "norm")) for of in subjects},
        STILL_HARD: {name: hardness.correlation(norm, surprisal) for name, norm in norms.items()},
    }
    by_layer = {
        form: {name: average(weights, values) for name, values in named.items()}
        for form, named in rho.items()
    }
    layers = range(len(norms[MODEL]))
    late = late_layers(layers, len(layers))
    means = {form: over_layers({TWIN: None, **named}, late) for form, named in by_layer.items()}
    shown = ((form, name, draws) for form in (ITSELF, STILL_HARD) for name, draws in means[form].items())
    return Measurement(
        form=FINAL,
        forms={form: Form.of(means[form]) for form in (FINAL, MATCHED, GROWTH)},
        n=hardness.measured.n_problems,
        note=_note(means),
        series=pd.concat([*tidy(by_layer, layers), *tidy(means)], ignore_index=True),
        further=[control(*number) for number in shown],
    )


def _note(means: dict[str, dict[str, Draws | None]]) -> str:
    final = means[FINAL]
    return (
        "In the last quarter of layers the final norm of the state that predicts a token correlates with the token's "
        f"surprisal in the early checkpoint at {as_text(final[MODEL])}, the early checkpoint's own norm at "
        f"{as_text(final[EARLY])}, an untrained network's at {as_text(final[TWIN])}. Among occurrences of the same "
        f"word it is {as_text(means[MATCHED][MODEL])}, for the growth of the norm since the early checkpoint "
        f"{as_text(means[GROWTH][MODEL])}. The norm at the token itself gives {as_text(means[ITSELF][MODEL])}; given "
        f"the final model's own surprisal {as_text(means[STILL_HARD][MODEL])} is left."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """ρ of early surprisal and the norm of the predicting state by layer: final, and in grey untrained and early."""
    layer_axis(axes, series, evidence)
    axes.axhline(0.0, color=GREY, linewidth=0.6)
    by_layer = series[series["layer"] >= 0]
    curve(axes, pick(by_layer, FINAL, TWIN), "untrained twin's norm", linestyle="--", **CONTROL)
    curve(axes, pick(by_layer, FINAL, EARLY), "early checkpoint's own norm", linestyle=":", **CONTROL)
    curve(axes, pick(by_layer, FINAL, MODEL), "final norm", **READER_LINES["model"])
    axes.set_ylabel("partial Spearman ρ of the norm and\nthe next token's early surprisal")
    legend_below(axes)


CLAIM = Claim(
    order=10,
    name="hard_tokens_grow_norm",
    version=2,
    title="Do tokens that were hard to predict early end with a high norm?",
    statement="Tokens that are hard to predict early in training end with a high norm.",
    caption=(
        "Rank correlation of a token's surprisal in the early checkpoint with the norm of the state that predicts it, "
        "within a problem, given position and the frequency of both tokens, by layer. Grey: the same with the norm in "
        "the untrained twin and in the early checkpoint itself. Bands: 95 % intervals. Shaded: the last quarter of the "
        "layers."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model", "signals/early"}),
    modes=frozenset({"think"}),
    unit="partial Spearman ρ of early surprisal and final norm over tokens, last quarter of layers",
    measured="the correlation of a token's early difficulty with the norm that it ends with",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest="Below a tenth, hardness would tell less than 1 % of the variance of the norm's ranks.",
    rules_out=rules_out(TWIN)
    | {EARLY: "a relation that was there from the beginning: the early checkpoint's own norm in its place"},
    measure=measure,
    panel=panel,
    figure="fig_10_hard_tokens",
    planted="learning",
)
