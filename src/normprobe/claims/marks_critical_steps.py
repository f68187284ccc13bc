"""Claim 7: token by token the norm lights up at critical reasoning steps (arXiv 2606.06188, heat map of layer 34).

An AUROC below 0.5 is a finding too. Copied tokens of the same string are a form of `RULE`, since a token's identity
alone moves its norm.

A problem whose scores are all the same is left out: short thoughts leave nothing once position, surprisal and frequency
are regressed out, and 0.5 by ties alone would stand there for the model and its controls alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.drawing import CONTROL, curve, layer_axis, legend_below, pick
from normprobe.claims.measure.measured_tokens import MeasuredTokens, late_layers, require
from normprobe.claims.measure.readers import MODEL, READER_NAMES, TWIN, null_subjects
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, over_layers, tidy
from normprobe.claims.measure.within_groups import auroc_within, residuals_within
from normprobe.runs.tables import Tables
from normprobe.style import BLUE, GREEN, ORANGE, PURPLE, READER_LINES, SKY

# 55 wins in 100 instead of 50: with less, the tokens that a heat map lights up are no guide to where the steps are.
SMALLEST_EFFECT = 0.05
RULE = (
    "AUROC of the norm for computed against other thought tokens of the same problem, mean over problems "
    "and the last quarter of layers. In each of three forms (all others; copied tokens of the same string; "
    "position, surprisal and frequency regressed out) margin = AUROC − the largest of 0.5, untrained twin "
    "and (where the run has one) early checkpoint. Supported if the 95 % interval of the smallest of the "
    f"three margins lies above {SMALLEST_EFFECT}, not supported if below, else inconclusive; inconclusive if "
    "a form or a control cannot be computed."
)
CHANCE = 0.5
PLAIN, SAME, REST = (
    "computed against the rest",
    "computed against copied, same token",
    "position, surprisal, frequency regressed out",
)
SURPRISAL = "surprisal as the score"
ROLE_COLOURS = {"copied": ORANGE, "plan": GREEN, "connective": PURPLE, "format": SKY}


class _Thoughts:
    """The measured thought tokens that have a role, in think: `role`, `problem` [token], and AUROCs on them."""

    def __init__(self, tables: Tables) -> None:
        self.measured = MeasuredTokens(tables, ["think"])
        tokens = self.measured.tokens
        self.mask = self.measured.where("think", ["thought"]) & tokens["role"].notna().to_numpy(dtype=bool)
        tokens = tokens[self.mask]
        self.role = tokens["role"].to_numpy(dtype=str)
        self.problem = self.measured.problem[self.mask]
        token, _ = pd.factorize(tokens["token"])
        self.same_token, _ = pd.factorize(self.problem * (int(token.max(initial=0)) + 1) + token)
        self.covariates = np.stack(
            [
                tokens["position"].to_numpy(dtype=float),
                self.scores("model", "surprisal")[0],
                np.log(np.bincount(token)[token]),
            ]
        )

    def scores(self, subject: str, signal: str = "norm") -> Float[np.ndarray, "layer token"]:
        values = self.measured.pick(self.measured.tables.signals(subject)[signal], self.mask)
        return np.atleast_2d(values).astype(float)

    def marks(
        self, scores: Float[np.ndarray, "layer token"], role: str
    ) -> Float[np.ndarray, "problem layer"]:
        """AUROC of one role against all other thought tokens."""
        return auroc_within(scores, self.role == role, self.problem, self.problem, self.measured.n_problems)

    def forms(self, subject: str) -> dict[str, Float[np.ndarray, "problem layer"]]:
        """AUROC of a subject's norm in the three forms."""
        norm, n = self.scores(subject), self.measured.n_problems
        pair = np.isin(self.role, ["computed", "copied"])
        same = auroc_within(
            norm[:, pair], self.role[pair] == "computed", self.same_token[pair], self.problem[pair], n
        )
        return {
            PLAIN: self.marks(norm, "computed"),
            SAME: same,
            REST: self.marks(residuals_within(norm, self.covariates, self.problem), "computed"),
        }


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the AUROC in three forms; the series hold it by layer, by form, subject and role.

    Raises NotMeasurable for too few problems with computed tokens in their thoughts.
    """
    thoughts = _Thoughts(tables)
    subjects = ["model", *null_subjects(tables)]
    auroc = {subject: thoughts.forms(subject) for subject in subjects if tables.has(f"signals/{subject}")}
    kept = np.isfinite(auroc["model"][PLAIN]).all(axis=1)
    n, depth = int(kept.sum()), auroc["model"][PLAIN].shape[1]
    require(n, "measured problems with computed tokens")
    weights, late = resample(n), late_layers(range(depth), depth)

    def of_model(signal: str, role: str) -> Float[np.ndarray, "draw layer"]:
        return average(weights, thoughts.marks(thoughts.scores("model", signal), role)[kept])

    by_layer = {
        READER_NAMES[subject]: {form: average(weights, values[kept]) for form, values in forms.items()}
        for subject, forms in auroc.items()
    }
    none: dict[str, Draws | None] = dict.fromkeys(READER_NAMES[subject] for subject in subjects)
    means = {
        form: none | over_layers({name: found[form] for name, found in by_layer.items()}, late)
        for form in (PLAIN, SAME, REST)
    }
    surprisal = of_model("surprisal", "computed")[:, 0]
    roles = {role: of_model("norm", role) for role in ROLE_COLOURS if (thoughts.role == role).any()}
    frames = [
        *tidy(by_layer, range(depth), names_first=True),
        *tidy({MODEL: roles | {SURPRISAL: surprisal}}, range(depth), names_first=True),
    ]
    return Measurement(
        form=PLAIN,
        forms={form: Form.of(named) for form, named in means.items()},
        n=n,
        note=_note(means, surprisal, by_layer[MODEL][PLAIN]),
        series=pd.concat(frames, ignore_index=True),
        further=[control(PLAIN, SURPRISAL, surprisal)],
    )


def _note(
    means: dict[str, dict[str, Draws | None]], surprisal: Draws, by_layer: Float[np.ndarray, "draw layer"]
) -> str:
    estimate = means[PLAIN][MODEL]
    assert estimate is not None
    place = "above" if estimate[0] > CHANCE else "below"
    lowest, highest = int(by_layer[0].argmin()), int(by_layer[0].argmax())
    return (
        f"In the last quarter of layers computed tokens have norms {place} those of other thought tokens: "
        f"AUROC {as_text(estimate)} (0.5 is chance), over all layers from {by_layer[0, lowest]:.2f} (layer "
        f"{lowest}) to {by_layer[0, highest]:.2f} (layer {highest}). Against copied tokens of the same "
        f"string it is {as_text(means[SAME][MODEL])}, with position, surprisal and frequency regressed out "
        f"{as_text(means[REST][MODEL])}. An untrained network gives "
        f"{as_text(means[PLAIN][TWIN])}; surprisal as the score {as_text(surprisal)}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """AUROC by layer: computed tokens in two forms, the other roles thin, the untrained twin grey, chance dotted."""
    layer_axis(axes, series, evidence)
    axes.axhline(CHANCE, color="black", linestyle=":", linewidth=0.8)
    for role, colour in ROLE_COLOURS.items():
        curve(axes, pick(series, role, MODEL), role, color=colour, linewidth=0.8)
    curve(axes, pick(series, PLAIN, TWIN), TWIN, linestyle="--", **CONTROL)
    curve(axes, pick(series, SAME, MODEL), SAME, color=BLUE, linestyle="--")
    curve(axes, pick(series, PLAIN, MODEL), "computed", **READER_LINES["model"])
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel("AUROC of the norm over thought tokens")
    legend_below(axes, columns=4)


CLAIM = Claim(
    order=7,
    name="marks_critical_steps",
    version=2,
    title="Is the norm higher where something is computed?",
    statement="Token by token, the norm is higher where a reasoning step is computed.",
    caption=(
        "Probability that a computed token has a higher norm than another token of the same thought, by layer; 0.5 "
        "(dotted) is chance. Thin: the same for the other roles. Grey: the untrained twin. Bands: 95 % intervals. "
        "Shaded: the last quarter of the layers."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "roles", "signals/model"}),
    modes=frozenset({"think"}),
    unit="AUROC of the norm for computed tokens, last quarter of layers",
    smallest_effect=SMALLEST_EFFECT,
    null=CHANCE,
    measure=measure,
    panel=panel,
    figure="fig_07_critical_steps",
    planted="reasoning",
)
