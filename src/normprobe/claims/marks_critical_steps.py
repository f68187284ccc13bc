"""Claim 7: token by token the norm lights up at critical reasoning steps (arXiv 2606.06188, heat map of layer 34).

A step is critical in one of two ways: something is computed there, where the problem source knows the role of each
token; or the answer hangs on it, where `normprobe importance` has tried what becomes of the answer without it (Thought
Anchors, arXiv 2506.19143). A run has the one, the other or both; the problems of the two are resampled each for
themselves.

An AUROC below 0.5 is a finding too. Copied tokens of the same string are a form of `RULE`, since a token's identity
alone moves its norm; so are sentences with position, surprisal and length regressed out, since the longer of two has
the higher peak by chance.

A problem whose scores are all the same is left out: short thoughts leave nothing once position, surprisal and frequency
are regressed out, and 0.5 by ties alone would stand there for the model and its controls alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.drawing import CONTROL, curve, layer_axis, legend_below, pick
from normprobe.claims.measure.important_sentences import FORMS, MEAN, PEAK, ImportantSentences
from normprobe.claims.measure.measured_tokens import MeasuredTokens, NotMeasurable, late_layers, require
from normprobe.claims.measure.readers import EARLY, MODEL, READER_NAMES, TWIN, null_subjects, rules_out
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, over_layers, tidy
from normprobe.claims.measure.within_groups import auroc_within, residuals_within
from normprobe.runs.tables import Tables
from normprobe.style import BLUE, GREEN, ORANGE, PURPLE, READER_LINES, SKY, VERMILION

SMALLEST_EFFECT = 0.05
RULE = (
    "AUROC of the norm for computed against other thought tokens of the same problem, mean over problems "
    "and the last quarter of layers, where the run has roles. In each of three forms (all others; copied tokens of the "
    "same string; position, surprisal and frequency regressed out) margin = AUROC − the largest of 0.5, untrained twin "
    "and (where the run has one) early checkpoint. Where the run has counterfactual importance (total variation of "
    "the answers less what chance gives) of ten problems or more, four further forms: the probability that of two "
    "sentences of a thought the more important one has the higher norm (peak, and mean over its tokens; each as it "
    "is, and with position, mean surprisal and length regressed out, as ½ + τ/2 of Kendall's partial τ within "
    "problems). Supported "
    f"if the 95 % interval of the smallest of all margins lies above {SMALLEST_EFFECT}, not supported if below, else "
    "inconclusive; inconclusive if a form or a control cannot be computed."
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
    """Measure the AUROC in the forms that the run has tables for; the series hold it by layer, form, subject and role.

    Raises NotMeasurable for a run without roles and importance, or with too few problems for either.
    """
    found, lacking = [], ""
    for table, part in (("roles", _by_role), ("importance", _by_importance)):
        try:
            found += [part(tables, resample)] if tables.has(table) else []
        except NotMeasurable as error:
            lacking = str(error)
    if not found:
        neither = "it needs roles, or the importance of sentences (`normprobe importance`), and this run has neither"
        raise NotMeasurable(lacking or neither)
    return replace(
        found[0],
        forms={name: form for one in found for name, form in one.forms.items()},
        note=" ".join(one.note for one in found),
        series=pd.concat([one.series for one in found], ignore_index=True),
    )


def _by_importance(tables: Tables, resample: Resampling) -> Measurement:
    """Sentences by their counterfactual importance, in four forms."""
    sentences = ImportantSentences(tables)
    weights, subjects = resample(sentences.n), ["model", *null_subjects(tables)]
    by_layer = {
        READER_NAMES[subject]: sentences.forms(subject, weights)
        for subject in subjects
        if tables.has(f"signals/{subject}")
    }
    means, depth = _late_means(subjects, by_layer, FORMS), by_layer[MODEL][PEAK].shape[1]
    peak, mean, *regressed = (as_text(means[form][MODEL]) for form in FORMS)
    note = (
        f"Of two sentences of one thought, the more important for the answer has the higher peak norm with probability "
        f"{peak} and the higher mean norm with {mean} ({sentences.n} problems, {len(sentences.importance)} sentences); "
        f"with position, surprisal and length regressed out {' and '.join(regressed)}. An untrained network gives "
        f"{as_text(means[PEAK][TWIN])} and {as_text(means[MEAN][TWIN])}."
    )
    return Measurement(
        form=PEAK,
        forms={form: Form.of(named) for form, named in means.items()},
        n=sentences.n,
        note=note,
        series=pd.concat(tidy(by_layer, range(depth), names_first=True), ignore_index=True),
    )


def _late_means(
    subjects: Sequence[str],
    by_layer: Mapping[str, Mapping[str, Float[np.ndarray, "draw layer"]]],
    forms: Sequence[str],
) -> dict[str, dict[str, Draws | None]]:
    """By form and subject the mean over the last quarter of layers; None for a subject that was not traced."""
    depth = by_layer[MODEL][forms[0]].shape[1]
    none: dict[str, Draws | None] = dict.fromkeys(READER_NAMES[subject] for subject in subjects)
    late = late_layers(range(depth), depth)
    return {
        form: none | over_layers({name: found[form] for name, found in by_layer.items()}, late)
        for form in forms
    }


def _by_role(tables: Tables, resample: Resampling) -> Measurement:
    """Tokens by their role, in three forms."""
    thoughts = _Thoughts(tables)
    subjects = ["model", *null_subjects(tables)]
    auroc = {subject: thoughts.forms(subject) for subject in subjects if tables.has(f"signals/{subject}")}
    kept = np.isfinite(auroc["model"][PLAIN]).all(axis=1)
    n, depth = int(kept.sum()), auroc["model"][PLAIN].shape[1]
    require(n, "measured problems with computed tokens")
    weights = resample(n)

    def of_model(signal: str, role: str) -> Float[np.ndarray, "draw layer"]:
        return average(weights, thoughts.marks(thoughts.scores("model", signal), role)[kept])

    by_layer = {
        READER_NAMES[subject]: {form: average(weights, values[kept]) for form, values in forms.items()}
        for subject, forms in auroc.items()
    }
    means = _late_means(subjects, by_layer, (PLAIN, SAME, REST))
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
    """AUROC by layer: computed tokens in two forms, the other roles thin, important sentences, the untrained twin grey,
    chance dotted."""
    layer_axis(axes, series, evidence)
    axes.axhline(CHANCE, color="black", linestyle=":", linewidth=0.8)
    for role, colour in ROLE_COLOURS.items():
        curve(axes, pick(series, role, MODEL), role, color=colour, linewidth=0.8)
    curve(axes, pick(series, PLAIN, TWIN), TWIN, linestyle="--", **CONTROL)
    curve(axes, pick(series, SAME, MODEL), SAME, color=BLUE, linestyle="--")
    curve(axes, pick(series, PLAIN, MODEL), "computed", **READER_LINES["model"])
    for form, line in ((PEAK, "-"), (MEAN, "-.")):
        curve(axes, pick(series, form, MODEL), form, color=VERMILION, linestyle=line, linewidth=1.0)
        curve(axes, pick(series, form, TWIN), f"{form}, {TWIN}", linestyle=line, **CONTROL)
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel("AUROC of the norm\nwithin a thought")
    legend_below(axes)


CLAIM = Claim(
    order=7,
    name="marks_critical_steps",
    version=2,
    title="Is the norm higher where something is computed?",
    statement="Token by token, the norm is higher at critical reasoning steps.",
    caption=(
        "Probability that a computed token has a higher norm than another token of the same thought, by layer; 0.5 "
        "(dotted) is chance. Thin: the same for the other roles. Red, where sentences were tried: that the more "
        "important of two has the higher norm. Grey: the untrained twin. Bands: 95 % intervals. "
        "Shaded: the last quarter of the layers."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "signals/model"}),
    uses=frozenset({"roles", "importance"}),
    modes=frozenset({"think"}),
    unit="AUROC of the norm, last quarter of layers",
    measured="the probability that a computed token has a higher norm than another",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest=(
        "55 wins in 100 instead of 50: with less, the tokens that a heat map lights up are no guide to where the "
        "steps are."
    ),
    rules_out=rules_out(TWIN, EARLY),
    null=CHANCE,
    measure=measure,
    panel=panel,
    figure="fig_07_critical_steps",
    planted="reasoning",
)
