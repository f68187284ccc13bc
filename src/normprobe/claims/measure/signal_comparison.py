"""Which signal tells most? The norm and every other signal, measured in the same way. A comparison, not a claim.

Three targets, each read within one layer and averaged over the last quarter of layers; sinks are left out:

- the reasoning features: Spearman's ρ with Σ_{i∈I} z_i over a problem's tokens (as in `entropies_do_not`);
- computed tokens: AUROC − 0.5 against the other thought tokens of the same problem (as in `marks_critical_steps`);
- a correct answer: AUROC − 0.5 of the signal's mean over the thought, for correct against wrong responses in think,
  over problems. Hard problems differ from easy ones in more than their answers, so also among problems of the same
  domain and difficulty only.

Layers of opposite sign cancel, since a reader would first have to know which is which. The untrained twin reads the
same tokens.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.measure.feature_correlation import NO_SINKS, feature_correlation
from normprobe.claims.measure.measured_tokens import (
    FEWEST_PROBLEMS,
    MeasuredTokens,
    NotMeasurable,
    late_layers,
)
from normprobe.claims.measure.readers import NAMES, NORM, READER_NAMES, of_layers, readable
from normprobe.claims.measure.resampling import Draws, Resampling, average, interval
from normprobe.claims.measure.within_groups import auroc_within
from normprobe.runs.tables import Tables
from normprobe.stats.classification import weighted_auroc

NAME = "signals"
NEEDS = frozenset({"tokens", "signals/model"})
FEATURES = "reasoning features"
COMPUTED = "computed tokens"
CORRECT = "correct answer"
CORRECT_ALIKE = "correct answer, matched problems"
CHANCE = 0.5


@dataclass(frozen=True)
class _Sample:
    """What all signals and targets share: the measured tokens, the resamples of their problems, the late layers."""

    measured: MeasuredTokens
    weights: Float[np.ndarray, "draw problem"]
    late: list[int]

    def thought(self) -> Bool[np.ndarray, " token"]:
        """Thought tokens in think, without sinks."""
        return self.measured.where("think", ["thought"]) & ~self.measured.tokens["sink"].to_numpy(dtype=bool)

    def scores(
        self, subject: str, mask: Bool[np.ndarray, " token"]
    ) -> dict[str, Float[np.ndarray, "_ masked"]]:
        """Each signal of the masked tokens in the late layers (the twin has no positions of its own)."""
        known = {
            signal: self.measured.read(subject, signal, self.late, mask)
            for signal in NAMES
            if subject == "model" or signal != "position"
        }
        return {signal: values for signal, values in known.items() if values is not None}


_Found = tuple[dict[str, Draws], int]
"""A number per signal, mean over the late layers, and of how many problems; empty where the run lacks the target."""
_NOTHING: _Found = ({}, 0)


def compare_signals(tables: Tables, resample: Resampling) -> pd.DataFrame:
    """One row per target, signal and reader (this model, untrained twin): unit, estimate with its 95 % interval over
    problems (low, high), strength = |estimate|, over_norm = strength − the norm's with its interval, and n problems.

    A target that the run lacks (features, roles, scored answers) has no rows, nor has one with so few pairs to compare
    that some resamples hold none. Raises NotMeasurable for too few problems, and where there is no target at all.
    """
    measured = MeasuredTokens(tables, ["think", "no_think"])
    depth = len(tables.signals("model")[NORM])
    sample = _Sample(measured, resample(measured.n_problems), late_layers(range(depth), depth))
    subjects = [subject for subject in ("model", "untrained") if tables.has(f"signals/{subject}")]
    rows = []
    for (target, measure), subject in itertools.product(_TARGETS.items(), subjects):
        found, n = measure(sample, subject)
        unit = "Spearman ρ" if target == FEATURES else "AUROC − 0.5"
        reader = READER_NAMES[subject]
        rows += [
            {
                "target": target,
                "signal": signal,
                "reader": reader,
                "unit": unit,
                **_numbers(draws, found[NORM]),
                "n": n,
            }
            for signal, draws in found.items()
            if np.isfinite(draws).all()
        ]
    if not rows:
        raise NotMeasurable(
            "it needs feature activations, roles or scored answers, and this run has none of them"
        )
    return pd.DataFrame(rows)


def _numbers(draws: Draws, norm: Draws) -> dict[str, float]:
    over_norm = np.abs(draws) - np.abs(norm)
    values = draws[0], *interval(draws), abs(draws[0]), over_norm[0], *interval(over_norm)
    names = "estimate low high strength over_norm over_norm_low over_norm_high".split()
    return dict(zip(names, map(float, values), strict=True))


def _features(sample: _Sample, subject: str) -> _Found:
    measured, tables = sample.measured, sample.measured.tables
    if not readable(tables, subject):
        return _NOTHING
    asked = zip(tables.layers("model"), of_layers(tables, "model", "n_selected"), strict=True)
    late = [layer for layer, n_selected in asked if layer in sample.late and n_selected > 0]
    if not late:
        return _NOTHING
    found = feature_correlation(measured, subject, sample.weights, NO_SINKS, list(NAMES), late)
    return {signal: rho.mean(axis=1) for signal, rho in found.items()}, measured.n_problems


def _computed(sample: _Sample, subject: str) -> _Found:
    role = sample.measured.tokens["role"]
    mask = sample.thought() & role.notna().to_numpy(dtype=bool)
    problem, n_problems = sample.measured.problem[mask], sample.measured.n_problems
    computed = (role[mask] == "computed").to_numpy(dtype=bool)
    found, n = {}, 0
    for signal, scores in sample.scores(subject, mask).items():
        auroc = auroc_within(scores, computed, problem, problem, n_problems)
        n = int(np.isfinite(auroc).all(axis=1).sum())
        found[signal] = average(sample.weights, auroc).mean(axis=1) - CHANCE
    return (found, n) if n >= FEWEST_PROBLEMS else _NOTHING


def _correct(sample: _Sample, subject: str, *, alike: bool) -> _Found:
    tables, tokens, mask = sample.measured.tables, sample.measured.tokens, sample.thought()
    if not tables.has("responses") or not tables.has("problems"):
        return _NOTHING
    scored = tables.responses.dropna(subset="correct").set_index("response_id")["correct"].astype(bool)
    mask &= tokens["response_id"].isin(scored.index).to_numpy()
    response, response_ids = pd.factorize(tokens["response_id"][mask])
    correct = scored.loc[response_ids].to_numpy(dtype=bool)
    first = np.unique(response, return_index=True)[1]  # a token of each response
    problems, cluster = np.unique(sample.measured.problem[mask][first], return_inverse=True)
    if len(problems) < FEWEST_PROBLEMS or correct.all() or not correct.any():
        return _NOTHING
    stratum = np.zeros(len(first), dtype=np.int64)
    if alike:
        groups = tables.problems.groupby(["domain", "difficulty"], dropna=False).ngroup()
        groups.index = pd.Index(tables.problems["problem_id"])
        stratum = groups.loc[tokens["problem_id"][mask].iloc[first]].to_numpy(dtype=np.int64)
    length, weights = np.bincount(response), sample.weights[:, problems]

    found = {}
    for signal, scores in sample.scores(subject, mask).items():
        means = [np.bincount(response, weights=row) / length for row in scores]
        by_layer = [weighted_auroc(of, correct, cluster, stratum, weights) for of in means]
        found[signal] = np.mean(by_layer, axis=0) - CHANCE
    return found, len(problems)


_TARGETS = {
    FEATURES: _features,
    COMPUTED: _computed,
    CORRECT: partial(_correct, alike=False),
    CORRECT_ALIKE: partial(_correct, alike=True),
}
