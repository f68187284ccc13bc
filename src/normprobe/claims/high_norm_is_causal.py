"""Claim 6: suppressing high-norm states hurts, suppressing others does not (arXiv 2606.06188, suppression figure).

Estimand: the accuracy lost when states with a norm above the layer's threshold are scaled by 0.1, minus the accuracy
lost when as many random states are shortened by the same ‖Δh‖. Paired: every problem is answered under every arm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.evidence import INCONCLUSIVE, Evidence
from normprobe.claims.judgement import (
    Draws,
    Form,
    average,
    beside,
    interval,
    judge,
    resamplings,
    row,
    said,
)
from normprobe.claims.measured import FEWEST_PROBLEMS, NotJudged
from normprobe.claims.tables import Tables
from normprobe.style import BLUE, GREY, VERMILION

NAME = "high_norm_is_causal"
STATEMENT = "Suppressing high-norm states makes accuracy collapse; suppressing as many other states does not."
NEEDS = frozenset({"suppression"})
# Ten points: the paper speaks of a collapse, and prompts worded differently already move accuracy by several points.
SMALLEST_EFFECT = 0.1
RULE = (
    "Drop = accuracy without suppression − accuracy under an arm. Margin = drop of high_norm (norms above "
    "the threshold × 0.1) − the largest of 0 and the drops of random_matched (as many random states, same "
    "‖Δh‖) and random_same_factor (as many random states × 0.1), paired by problem. Supported if the 95 % "
    f"interval of the margin lies above {SMALLEST_EFFECT}, not supported if below, else inconclusive; "
    "inconclusive if an arm is missing, if no state was ever suppressed, or if plain accuracy leaves no room "
    "for such a drop. low_norm stands beside: it cannot be matched in number, since a state made short stays short."
)
PLAIN, HIGH, RANDOM, LOW = "plain", "high_norm", "random_matched", "low_norm"
RANDOM_SAME_FACTOR = "random_same_factor"
# The same contrast for models in which the threshold marks few states: the tenth with the highest norms.
TOP, TOP_RANDOM = "top10", "random10"


def evaluate(tables: Tables, rng: np.random.Generator, seed: int) -> tuple[Evidence, pd.DataFrame]:
    """Judge the claim; the series hold accuracy, drop and suppressed states per token by arm (column `arm`).

    Raises NotJudged where no answer is scored, an arm of the estimand is missing, or too few problems are paired.
    """
    rows = tables.suppression
    rows = rows[rows["correct"].notna()].assign(correct=lambda scored: scored["correct"].astype(float))
    accuracy = rows.pivot_table(index="problem_id", columns="arm", values="correct")
    if missing := sorted({PLAIN, HIGH, RANDOM} - set(accuracy.columns)):
        raise NotJudged(f"it needs scored answers under {', '.join(missing)}, and this run has none")
    accuracy = accuracy.dropna()
    if len(accuracy) < FEWEST_PROBLEMS:
        raise NotJudged(
            f"it needs at least {FEWEST_PROBLEMS} problems answered under every arm, and this run has {len(accuracy)}"
        )
    weights = resamplings(rng, len(accuracy))
    means = average(weights, accuracy.to_numpy(dtype=float))
    right: dict[str, Draws] = {arm: means[:, i] for i, arm in enumerate(accuracy.columns)}
    drop = {arm: right[PLAIN] - draws for arm, draws in right.items() if arm != PLAIN}
    suppressed = _suppressed_per_token(rows[rows["problem_id"].isin(accuracy.index)])

    verdict, decision = judge(
        {"": Form(drop[HIGH], {arm: drop.get(arm) for arm in (RANDOM, RANDOM_SAME_FACTOR)})},
        null=0.0,
        smallest_effect=SMALLEST_EFFECT,
    )
    if suppressed[HIGH] == 0 or right[PLAIN][0] < SMALLEST_EFFECT:
        verdict = INCONCLUSIVE
    estimate = drop[HIGH] - drop[RANDOM]
    contrast_of_top = drop[TOP] - drop[TOP_RANDOM] if {TOP, TOP_RANDOM} <= drop.keys() else None
    evidence = Evidence(
        claim=NAME,
        statement=STATEMENT,
        verdict=verdict,
        rule=RULE,
        estimate=float(estimate[0]),
        unit="accuracy lost under high_norm beyond random_matched",
        interval=interval(estimate),
        n=len(accuracy),
        n_unit="problems",
        controls=(
            beside("accuracy, plain", right[PLAIN]),
            *(beside(f"drop, {arm}", drop.get(arm)) for arm in (HIGH, RANDOM, LOW)),
            *(beside(f"drop, {arm}", draws) for arm, draws in drop.items() if arm not in (HIGH, RANDOM, LOW)),
            beside(f"second form: drop of {TOP} beyond {TOP_RANDOM}", contrast_of_top),
        ),
        decision=decision,
        seed=seed,
        note=_note(right, drop, suppressed),
    )
    frames = [row("accuracy", arm, draws) for arm, draws in right.items()]
    frames += [row("drop", arm, draws) for arm, draws in drop.items()]
    series = pd.concat(frames, ignore_index=True)
    return evidence, series.assign(suppressed_per_token=series["arm"].map(suppressed))


def _suppressed_per_token(rows: pd.DataFrame) -> dict[str, float]:
    """Suppressed states (tokens × layers) per generated token, by arm."""
    totals = rows.groupby("arm")[["n_suppressed", "n_tokens"]].sum()
    return {
        str(arm): float(count)
        for arm, count in (totals["n_suppressed"] / totals["n_tokens"].clip(lower=1)).items()
    }


def _note(right: dict[str, Draws], drop: dict[str, Draws], suppressed: dict[str, float]) -> str:
    if suppressed[HIGH] == 0:
        return "No state had a norm above its layer's threshold, so nothing was suppressed and nothing can be said."
    text = (
        f"With {suppressed[HIGH]:.3g} high-norm states suppressed per generated token, accuracy goes from "
        f"{right[PLAIN][0]:.0%} to {right[HIGH][0]:.0%}; as many random states, shortened as much, give "
        f"{right[RANDOM][0]:.0%}. The drops are {said(drop[HIGH])} and {said(drop[RANDOM])}"
    )
    return text + (f", that of low-norm states {said(drop[LOW])}." if LOW in drop else ".")


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """Accuracy under every arm with its interval; the line is plain accuracy."""
    accuracy = series[series["quantity"] == "accuracy"].set_index("arm")
    arms = [arm for arm in (PLAIN, HIGH, RANDOM, LOW) if arm in accuracy.index]
    arms += sorted(set(accuracy.index) - set(arms))
    shown = accuracy.loc[arms]
    heights = np.arange(len(arms), 0, -1)
    colours = [{PLAIN: BLUE, HIGH: VERMILION}.get(arm, GREY) for arm in arms]
    axes.barh(heights, shown["estimate"], color=colours, height=0.6, alpha=0.6)
    axes.hlines(heights + 0.12, shown["low"], shown["high"], color="black", linewidth=1.0)
    axes.axvline(shown["estimate"].iloc[0], color=BLUE, linestyle="--", linewidth=0.8)
    for height, rate in zip(heights, shown["suppressed_per_token"], strict=True):
        axes.text(0.01, height - 0.12, f"{rate:.2g} states per token", va="center", fontsize=6)
    axes.set_yticks(heights, arms)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel(f"accuracy in think (95 % intervals, n = {evidence.n} {evidence.n_unit})")
