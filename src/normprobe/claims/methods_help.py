"""Claim 10: ALRR, ERSS and LRS improve accuracy, without training (arXiv 2606.06188, main results).

The settings tuned include the paper's own; LRS sums the norms of the deepest layers over the last third. A baseline
does what its method does with the norm taken out. Other uses of the norm (its mean, votes that it weights) are rivals
of LRS's form and not of the claim, so they are shown and do not count.

Version 3 of the rule adds published rivals, written before any of them was run on a model: damped loops over a block of
layers (arXiv 2605.23872) with as many extra passes as ALRR, deep-thinking ratio and Think@n (2602.13517), aligned
change of the latent trajectory (2510.10494), online DeepConf (2508.15260). More rivals can only lower a margin. The
trajectory's net and cumulative change are lengths of differences of states: states twice as long give twice as much. So
they are other uses of the norm, and shown; aligned change is a cosine and decides.

A method or a baseline that acted on no state repeats plain generation: it gains exactly 0, which says nothing about it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from normprobe.claims.claim import Claim, Measurement, Override
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control, decide_by_margin
from normprobe.claims.measure.measured_tokens import NotMeasurable, require
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, tidy
from normprobe.runs.tables import Tables
from normprobe.stats.bootstrap import TAIL
from normprobe.stats.paired import mcnemar
from normprobe.stats.verdict import INCONCLUSIVE
from normprobe.style import BLUE, GREY, VERMILION

SMALLEST_EFFECT = 0.02
PLAIN, WARMER = "plain", "plain, T = 0.6"
LRS = "lrs_last_third"
# Shown and decide nothing: they spend far more than the method, see the right answers, or read the norm too.
SHOWN = {
    "ALRR": ("ALRR: always on", "ALRR: damped loop, always on"),
    "ERSS": (),
    "LRS": (
        *("oracle", "mean_norm", "vote by lrs_last_third", "vote by lrs_A_per_token"),
        *("lt_net_change", "lt_cumulative_change"),
    ),
}
RULE = (
    "By method, margin = accuracy − the largest of plain generation and the baselines at equal compute, paired by "
    "held-out problem. ALRR: as many extra passes at random tokens, at uncertain tokens, and in damped steps of a "
    "block of layers. ERSS: a random earlier state, length alone, rotation, contrastive activation addition with its "
    "own best multiplier, sampling at temperature 0.6. LRS: every selector that reads neither the norm nor a length "
    "that grows with it, on the same samples, of which a random one is its plain generation; none of them takes more "
    "tokens, and some take fewer. "
    f"The weakest of the three margins decides. Supported if its 95 % interval lies above {SMALLEST_EFFECT}, not "
    "supported if below, else inconclusive; inconclusive if a baseline cannot be computed, or if ALRR, ERSS or a "
    "baseline that steers never acted. ALRR and ERSS use the settings that did best on other problems, LRS the "
    "paper's form."
)
RIVALS = 6
"""Of each method's baselines as many are drawn."""
BASELINES = {
    "ALRR": ("ALRR: random gate", "ALRR: entropy gate", "ALRR: damped loop"),
    "ERSS": ("ERSS: random bank vector", "ERSS: length alone", "ERSS: rotation", "CAA", WARMER),
}
LATER = (
    *("deep_thinking_ratio", "think@n", "think@n, whole", "lt_aligned_change"),
    *("deepconf online, top 10%", "deepconf online, top 90%"),
)
"""LRS's rivals since version 3 of the rule: an evaluation from before has none of them, and decides nothing."""


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure accuracies; the series hold them by treatment and selector (`name`), and by method the gain over plain
    generation of the method and of all it is compared with (quantity `gain: ALRR`). Raises NotMeasurable for too few
    problems or a method without a result.
    """
    treatments, selectors = _wide(tables.method_treatments, "treatment"), _wide(tables.selection, "selector")
    problems = treatments.index.intersection(selectors.index)
    require(len(problems), "problems under every treatment")
    right = pd.concat([treatments.loc[problems], selectors.loc[problems]], axis=1)
    if missing := [name for name in ("ALRR", "ERSS", PLAIN, LRS) if name not in right]:
        raise NotMeasurable(f"it needs answers under {', '.join(missing)}, and this run has none")
    means = average(resample(len(right)), right.to_numpy(dtype=float))
    accuracy: dict[str, Draws] = {str(name): means[:, i] for i, name in enumerate(right.columns)}

    present = [
        name for name in map(str, selectors) if not name.startswith("lrs_") and name not in SHOWN["LRS"]
    ]
    others = list(dict.fromkeys([*present, *LATER]))
    compared = {method: (method, [PLAIN, *names]) for method, names in BASELINES.items()}
    compared["LRS"] = (LRS, others)
    acted = tables.method_treatments.groupby("treatment")["n_triggered"].sum() > 0
    idle = [name for name in acted.index[~acted] if name not in (PLAIN, WARMER)]
    forms = {
        method: Form(
            accuracy[own],
            {name: None if name in idle else accuracy.get(name) for name in rivals},
            own,
            "accuracy",
        )
        for method, (own, rivals) in compared.items()
    }
    # A method's gain over plain generation; LRS has its samples, so there a random one of them is plain.
    unchanged = {method: accuracy[PLAIN if method in BASELINES else "random"] for method in forms}
    gain = {method: accuracy[own] - unchanged[method] for method, (own, _) in compared.items()}
    decision = decide_by_margin(forms, CLAIM.null, SMALLEST_EFFECT)
    weakest = decision.form or min(gain, key=lambda method: gain[method][0])
    shown = {method: [name for name in names if name in right] for method, names in SHOWN.items()}
    gains = {
        f"gain: {method}": {
            name: accuracy[name] - unchanged[method]
            for name in (own, *rivals, *shown[method])
            if name in accuracy and name != PLAIN
        }
        for method, (own, rivals) in compared.items()
    }
    return Measurement(
        estimate=gain[weakest],
        form=weakest,
        forms=forms,
        n=len(right),
        note=_note(right, gain, present) + _tokens(tables.selection),
        series=pd.concat(tidy({"accuracy": accuracy, **gains}), ignore_index=True),
        further=[
            control(method, name, accuracy[name], quantity="accuracy")
            for method, names in (("LRS", [PLAIN]), *shown.items())
            for name in names
        ],
        overrides=[
            Override(INCONCLUSIVE, f"{method} acted on no state.") for method in BASELINES if method in idle
        ],
        lacking=dict.fromkeys(("ALRR: damped loop", *LATER), "this run was evaluated before it joined")
        | dict.fromkeys(idle, "it acted on no state"),
    )


def _wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Right or wrong [problem, treatment], for problems that were scored under every treatment."""
    scored = table[table["correct"].notna()].astype({"correct": float})
    return scored.pivot_table(index="problem_id", columns=column, values="correct", sort=False).dropna()


def detectable(discordance: float, n: int) -> float:
    """The smallest gain that a paired comparison of n problems finds with 90 % power, where this share of them is
    answered differently (normal approximation of McNemar's test)."""
    return float((ndtri(1 - TAIL) + ndtri(0.9)) * np.sqrt(discordance / n))


def _note(right: pd.DataFrame, gain: dict[str, Draws], others: list[str]) -> str:
    def against(first: str, second: str) -> str:
        a, b = right[first].to_numpy() == 1, right[second].to_numpy() == 1
        return (
            f"McNemar p = {mcnemar(a, b).p:.2g}, {(a != b).mean():.1%} answered differently, so that a gain of "
            f"{detectable(float((a != b).mean()), len(right)):.3f} would have been found with 90 % power"
        )

    best = max(others, key=lambda name: right[name].mean())
    return (
        f"Plain generation is right in {right[PLAIN].mean():.1%}. ALRR gains {as_text(gain['ALRR'])} "
        f"({against('ALRR', PLAIN)}); ERSS gains {as_text(gain['ERSS'])} ({against('ERSS', PLAIN)}). Of the same "
        f"samples a random one is right in {right['random'].mean():.1%}, the one with the highest LRS in "
        f"{right[LRS].mean():.1%} ({against(LRS, 'random')}), the best other selector ({best}) in "
        f"{right[best].mean():.1%}."
    )


def _tokens(selection: pd.DataFrame) -> str:
    """What the selectors write that stop samples, as shares of all tokens; nothing for an evaluation without counts."""
    if "tokens" not in selection:
        return ""
    written = selection.groupby("selector")["tokens"].sum()
    shares = (written / written.max())[lambda share: share < 1].sort_values()
    return (
        f" Of the samples' tokens {', '.join(f'{name} takes {share:.0%}' for name, share in shares.items())}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """Accuracy gained over plain generation, by method (filled) and what it is compared with (open), with intervals.

    Of LRS's many rivals the strongest `RIVALS`, and those that decide nothing.
    """
    height, ticks = 0.0, {}
    for method in ("ALRR", "ERSS", "LRS"):
        rows = series[series["quantity"] == f"gain: {method}"].set_index("name")
        shown = list(SHOWN[method])
        rivals = rows.index[1:].difference([*shown, "random"], sort=False)
        first = [rows.index[0], *rows.loc[rivals, "estimate"].nlargest(RIVALS).index]
        for name in (*first, *(treatment for treatment in shown if treatment in rows.index)):
            at, own = rows.loc[name], name == rows.index[0]
            colour = VERMILION if own else GREY
            axes.hlines(height, at["low"], at["high"], color=colour, linewidth=1.2)
            axes.plot(at["estimate"], height, "o", color=colour, markerfacecolor=colour if own else "white")
            ticks[height] = method if own else f"{name.removeprefix(f'{method}: ')}{' *' * (name in shown)}"
            height -= 1
        height -= 0.6
    axes.axvline(0.0, color=BLUE, linestyle="--", linewidth=0.8)
    axes.axvline(SMALLEST_EFFECT, color=GREY, linestyle=":", linewidth=0.8)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    axes.set_xlabel(f"accuracy gained over plain generation (n = {evidence.n:,} {evidence.n_unit})")


CLAIM = Claim(
    order=12,
    name="methods_help",
    version=3,
    title="Do ALRR, ERSS and LRS help, beyond other uses of the same compute?",
    statement="ALRR, ERSS and LRS improve accuracy, each beyond other uses of the same compute.",
    caption=(
        "Accuracy gained on held-out problems over plain generation (dashed; for LRS over one of the same samples at "
        "random) by each method (filled) and its strongest baselines (open). Dotted: the smallest effect of interest. "
        "*: decides nothing, since it spends more, reads the norm too (or a length that grows with it), or sees the "
        "right answer. Lines: 95 % intervals."
    ),
    rule=RULE,
    needs=frozenset({"method_treatments", "selection"}),
    modes=frozenset({"think"}),
    unit="accuracy gained over plain generation by the weakest method",
    measured="the accuracy of the method that helps least",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest=(
        "Two points: the paper's gains are two to four, and a method that has to be switched on must be worth the "
        "trouble."
    ),
    rules_out={
        PLAIN: "no gain at all: the same problems without a method",
        "ALRR: random gate": "help that extra passes give wherever they are: as many at random tokens",
        "ALRR: entropy gate": "a peak of the norm being no better a sign than an uncertain next token",
        "ALRR: damped loop": "help that as many extra passes give in small steps of a block of layers in the middle",
        "ERSS: random bank vector": "help that any earlier state of high norm gives: a random one of the bank",
        "ERSS: length alone": "help that comes from the length of the same states, changed as much",
        "ERSS: rotation": "help that comes from turning the same states as far, in any direction",
        "CAA": "help that one fixed direction gives: contrastive activation addition, its multiplier tuned as well",
        WARMER: "help that sampling at temperature 0.6 gives",
        "random": "a choice no better than chance",
        "majority": "a choice no better than what most samples say",
        "shortest": "a choice by length: the shortest",
        "longest": "a choice by length: the longest, as a sum of norms grows with it",
        **dict.fromkeys(
            ("mean_logprob", "self_certainty", "deepconf"),
            "a choice no better than by the model's own confidence",
        ),
        "deep_thinking": "a choice by how many tokens settle in the last layers only: deep-thinking ratio",
        "think@n": "a choice no better than a vote of the samples of a high deep-thinking ratio",
        "lt_aligned": "a choice by how straight the states of the thought travel: aligned change",
        "vote by": "a choice no better than a vote that confidence weights",
    },
    measure=measure,
    panel=panel,
    figure="fig_15_main_results",
    height=1.3,
)
