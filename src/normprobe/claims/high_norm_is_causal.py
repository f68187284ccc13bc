"""Claim 6: suppressing high-norm states hurts, suppressing others does not (arXiv 2606.06188, suppression figure).

class_matched is a control since high norms sit at tokens of certain kinds, and harm there may cost more whatever the
norm. The treatments that disturb the *same* states ask other questions: `rotation`, whether any disturbance of these
states hurts as much; `direction_only`, whether it is the norm as such. Which treatments decide was settled before the
final model was traced.

A control that changed no state (a class that holds no other token, say) loses exactly nothing, and any harm exceeds it:
it is no control, and the claim stays open.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.claim import Claim, ExtraFigure, Measurement, Override
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.measured_tokens import NotMeasurable, require
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, tidy
from normprobe.labels import in_words
from normprobe.runs.tables import Tables
from normprobe.stats.paired import mcnemar
from normprobe.stats.verdict import INCONCLUSIVE
from normprobe.style import BLUE, GREY, VERMILION

PLAIN, HIGH, RANDOM, LOW = "plain", "high_norm", "random_matched", "low_norm"
RANDOM_SAME_FACTOR, CLASS_MATCHED = "random_same_factor", "class_matched"
ROTATION, DIRECTION_ONLY = "rotation", "direction_only"
CONTROLS = (RANDOM, RANDOM_SAME_FACTOR, CLASS_MATCHED)
SHOWN = (ROTATION, DIRECTION_ONLY, LOW)
# The same contrast for models in which the threshold marks few states: the tenth with the highest norms.
TOP, TOP_RANDOM = "top10", "random10"
SMALLEST_EFFECT = 0.1
# A class of few tokens leaves a dose nowhere else to go. Beyond a half, the control mostly repeats the treatment.
LARGEST_OVERLAP = 0.5
ACCURACY_LOST = "accuracy lost"
NOTHING_SUPPRESSED = "No state had a norm above its layer's threshold, so nothing was suppressed."
RULE = (
    "Drop = accuracy without suppression − accuracy under a treatment. Margin = drop where high-norm states (norms "
    "above the threshold) are × 0.1 − the largest of 0 and the drops of the controls: as many random states moved as "
    "far (same ‖Δh‖), as many random states × 0.1, and tokens of the same kind (same ‖Δh‖, only among tokens of the "
    "same class and place), paired by problem. Supported if the 95 % interval of the margin lies above "
    f"{SMALLEST_EFFECT}, not supported if below, else inconclusive; inconclusive if a treatment is missing or a "
    "control changed no state, if no state was ever suppressed, if plain accuracy leaves no room for such a drop, "
    "or if what denies the claim are tokens of the same kind, with more than half of those doses on tokens whose "
    "high-norm states were suppressed themselves. Rotation, the norm set to the median and low-norm states do not "
    "count: the first two disturb the same states, and the last cannot be matched in number, since a state made short "
    "stays short."
)


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the drops; the series hold accuracy, drop, factor and suppressed states per token by treatment (`name`).

    Raises NotMeasurable where no answer is scored, a treatment of the estimand is missing, or problems are too few.
    """
    rows = tables.suppression
    rows = rows[rows["correct"].notna()].assign(correct=lambda scored: scored["correct"].astype(float))
    accuracy = rows.pivot_table(index="problem_id", columns="treatment", values="correct")
    if missing := sorted({PLAIN, HIGH, RANDOM} - set(accuracy.columns)):
        raise NotMeasurable(
            f"it needs scored answers under {in_words(', '.join(missing))}, and this run has none"
        )
    accuracy = accuracy.dropna()
    require(len(accuracy), "problems answered under every treatment")
    rows = rows[rows["problem_id"].isin(accuracy.index)]
    weights = resample(len(accuracy))
    means = average(weights, accuracy.to_numpy(dtype=float))
    right: dict[str, Draws] = {treatment: means[:, i] for i, treatment in enumerate(accuracy.columns)}
    drop = {treatment: right[PLAIN] - draws for treatment, draws in right.items() if treatment != PLAIN}
    totals = rows.groupby("treatment")[["n_suppressed", "n_tokens"]].sum()
    suppressed = totals["n_suppressed"] / totals["n_tokens"].clip(lower=1)
    overlap = _overlap(rows, accuracy.index, weights)

    contrast_of_top = drop[TOP] - drop[TOP_RANDOM] if {TOP, TOP_RANDOM} <= drop.keys() else None
    series = pd.concat(tidy({"accuracy": right, "drop": drop}), ignore_index=True)
    factor = rows.groupby("treatment")["factor"].first()
    idle = [name for name in CONTROLS if name in drop and suppressed[HIGH] > 0 and suppressed[name] == 0]
    controls = {name: None if name in idle else drop.get(name) for name in CONTROLS}
    return Measurement(
        estimate=drop[HIGH] - drop[RANDOM],
        forms={"": Form(drop[HIGH], controls, HIGH, ACCURACY_LOST)},
        n=len(accuracy),
        note=_note(accuracy, drop, suppressed, overlap),
        series=series.assign(
            factor=series["name"].map(factor), suppressed_per_token=series["name"].map(suppressed)
        ),
        further=[
            control("", PLAIN, right[PLAIN], quantity="accuracy"),
            control("", f"doses of {CLASS_MATCHED} on tokens of {HIGH}", overlap, quantity="share"),
            *(control("", name, drop.get(name), quantity=ACCURACY_LOST) for name in SHOWN),
            control("the tenth with the highest norms", f"{TOP} beyond {TOP_RANDOM}", contrast_of_top),
        ],
        overrides=_overrides(right, suppressed, overlap),
        lacking=dict.fromkeys(idle, "it changed no state"),
    )


def _overrides(right: dict[str, Draws], suppressed: pd.Series, overlap: Draws | None) -> list[Override]:
    """The conditions of the rule that leave the claim open whatever the margin says."""
    met = []
    if suppressed[HIGH] == 0:
        met.append(Override(INCONCLUSIVE, NOTHING_SUPPRESSED))
    if right[PLAIN][0] < SMALLEST_EFFECT:
        room = f"Plain accuracy, {right[PLAIN][0]:.1%}, leaves no room for a drop of {SMALLEST_EFFECT:.0%}."
        met.append(Override(INCONCLUSIVE, room))
    if overlap is not None and overlap[0] > LARGEST_OVERLAP:
        repeats = f"What denies the claim are {in_words(CLASS_MATCHED)}: {overlap[0]:.0%} of the doses hit high norms."
        met.append(Override(INCONCLUSIVE, repeats, denied_by=CLASS_MATCHED))
    return met


def _overlap(rows: pd.DataFrame, problems: pd.Index, weights: np.ndarray) -> Draws | None:
    """Share of class_matched's doses on tokens that high_norm changed itself; None where the run does not record it."""
    if "on_same_tokens" not in rows:
        return None
    share = rows[rows["treatment"] == CLASS_MATCHED].set_index("problem_id")["on_same_tokens"]
    return average(weights, share.reindex(problems).to_numpy(dtype=float)[:, None])[:, 0]


def _note(
    accuracy: pd.DataFrame, drop: dict[str, Draws], suppressed: pd.Series, overlap: Draws | None
) -> str:
    if suppressed[HIGH] == 0:
        return NOTHING_SUPPRESSED
    right = accuracy.mean()

    def p(first: str, second: str) -> str:
        result = mcnemar(accuracy[first].to_numpy() == 1, accuracy[second].to_numpy() == 1)
        return f"McNemar p = {result.p:.2g}"

    text = (
        f"With {suppressed[HIGH]:.3g} high-norm states suppressed per generated token, accuracy goes from "
        f"{right[PLAIN]:.0%} to {right[HIGH]:.0%} ({p(PLAIN, HIGH)}); as many random states, shortened as much, give "
        f"{right[RANDOM]:.0%} ({p(HIGH, RANDOM)} against high-norm states). "
        f"The drops are {as_text(drop[HIGH])} and {as_text(drop[RANDOM])}."
    )
    if CLASS_MATCHED in drop:
        text += f" Among tokens of the same class and place the drop is {as_text(drop[CLASS_MATCHED])}"
        text += "." if overlap is None else f", but {overlap[0]:.0%} of those doses hit states of high norm."
    if ROTATION in drop:
        text += (
            f" Turned as far at the same norm, the high-norm states ({suppressed[ROTATION]:.3g} per token, since they "
            f"stay long) cost {as_text(drop[ROTATION])}: what any disturbance of them costs."
        )
    if DIRECTION_ONLY in drop:
        text += (
            f" Set to the layer's median norm, they cost {as_text(drop[DIRECTION_ONLY])}: what losing the norm's "
            "message costs."
        )
    return text + (f" Suppressing low-norm states costs {as_text(drop[LOW])}." if LOW in drop else "")


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """Accuracy under every treatment, with its interval, but for the milder factors; the line is plain accuracy."""
    accuracy = series[series["quantity"] == "accuracy"].set_index("name")
    treatments = [treatment for treatment in (PLAIN, HIGH, *CONTROLS, *SHOWN) if treatment in accuracy.index]
    milder = {treatment for curve in (HIGH, RANDOM_SAME_FACTOR) for treatment in _milder(accuracy, curve)}
    treatments += sorted(set(accuracy.index) - set(treatments) - milder)
    shown = accuracy.loc[treatments]
    heights = np.arange(len(treatments), 0, -1)
    strong = {PLAIN: BLUE, HIGH: VERMILION} | dict.fromkeys(CONTROLS, GREY)
    colours = [(strong[treatment], 0.6) if treatment in strong else (GREY, 0.25) for treatment in treatments]
    axes.barh(heights, shown["estimate"], color=colours, height=0.75)
    axes.hlines(heights, shown["low"], shown["high"], color="black", linewidth=1.0)
    axes.axvline(shown["estimate"].iloc[0], color=BLUE, linestyle="--", linewidth=0.8)
    axes.set_yticks(heights, treatments)
    rates = axes.secondary_yaxis("right")
    rates.set_yticks(heights, [f"{rate:.2g}" for rate in shown["suppressed_per_token"]])
    rates.set_ylabel("suppressed states per token")
    axes.set_ylim(0.4, len(treatments) + 0.6)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel(f"accuracy in think (95 % intervals, n = {evidence.n} {evidence.n_unit})")


def dose_panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """Accuracy against the factor on each suppressed state, for high norms and for as many random states."""
    accuracy = series[series["quantity"] == "accuracy"].set_index("name")
    lines = ((HIGH, VERMILION, "o", "-", 0.004), (RANDOM_SAME_FACTOR, GREY, "s", "--", -0.004))
    for curve, colour, marker, line, aside in lines:  # aside: or one interval hides the other
        shown = accuracy[accuracy.index.isin([PLAIN, curve, *_milder(accuracy, curve)])].sort_values("factor")
        at = shown["factor"] + aside
        axes.plot(at, shown["estimate"], color=colour, marker=marker, linestyle=line, label=curve)
        axes.vlines(at, shown["low"], shown["high"], color=colour, linewidth=1.0)
    axes.set_xlim(1.03, 0.07)
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel("accuracy in think")
    axes.set_xlabel(f"what is left of a suppressed state (n = {evidence.n} {evidence.n_unit})")
    axes.legend(loc="lower left")


def _milder(accuracy: pd.DataFrame, curve: str) -> list[str]:
    """The treatments that repeat `curve` at a milder factor: `high_norm_0.5` repeats high_norm."""
    return [treatment for treatment in accuracy.index if treatment.startswith(f"{curve}_")]


CLAIM = Claim(
    order=8,
    name="high_norm_is_causal",
    version=2,
    title="Does suppressing high-norm states hurt more than suppressing matched ones?",
    statement="Suppressing high-norm states makes accuracy collapse; suppressing as many other states does not.",
    caption=(
        "Accuracy in think while the named states are changed. Dashed: nothing changed. Dark grey: the controls that "
        "decide. In the bars: states changed per generated token. Lines: 95 % intervals."
    ),
    rule=RULE,
    needs=frozenset({"suppression"}),
    modes=frozenset({"think"}),
    unit="accuracy lost with high-norm states suppressed, beyond random states moved as far",
    measured="the accuracy lost when high-norm states are suppressed",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest=(
        "Ten points: the paper speaks of a collapse, and prompts worded differently already move accuracy by "
        "several points."
    ),
    rules_out={
        RANDOM: "harm that any change of this size does: as many random states of the same response, each moved as far",
        RANDOM_SAME_FACTOR: "harm that any state so shortened does: as many random states × 0.1",
        CLASS_MATCHED: "harm that comes from the kind of token: as many states at tokens of the same class and place",
    },
    measure=measure,
    panel=panel,
    figure="fig_08_suppression",
    extra_figures=(
        ExtraFigure(
            "fig_11_dose_response",
            "Accuracy in think while states are shortened to a share of their norm: those above the layer's threshold, "
            "and as many random ones of the same problems. Lines: 95 % intervals. It decides nothing; an effect of the "
            "norm should grow with the dose, and more so than at random tokens.",
            dose_panel,
        ),
    ),
    planted="reasoning",
)
