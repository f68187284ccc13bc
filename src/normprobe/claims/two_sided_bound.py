"""Claim 3: ΣΔz = Θ(√(‖h_think‖² − ‖h_non‖²)), as the two-sided bound with every constant (arXiv 2606.06188, theorem).

With constants measured on the problem itself the inequality is algebra and cannot fail. The claim is that constants
fixed on one half of the measured problems bound S on the *other* half, and that the bound says something: a half that
reads "at least 0" or "at most ∞" is vacuous, and Θ needs both. The signed form decides, since I was chosen on other
problems and some Δ are negative; I⁺, the paper's own thresholds and the bound from norms alone stand beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from normprobe.claims.evidence import VACUOUS, Control, Evidence
from normprobe.claims.measure.bound_inputs import shared_problems
from normprobe.claims.measure.held_out_bound import NORMS, PAPERS, PLUS, SIGNED, SQUARES, held_out_bounds
from normprobe.claims.measure.judgement import (
    READER_NAMES,
    Draws,
    Form,
    Resampling,
    beside,
    interval,
    judge,
    null_readers,
)
from normprobe.claims.measure.measured import FEWEST_PROBLEMS, NotJudged
from normprobe.runs.tables import READERS, Tables
from normprobe.stats.bootstrap import weighted_means
from normprobe.style import BLACK, BLUE, GREY, VERMILION
from normprobe.theory.bound import signed_bound, slack_free_bound
from normprobe.theory.synthetic import BROKEN, EXACT, synthetic_pair

NAME = "two_sided_bound"
STATEMENT = "The rise of the reasoning features is bounded from both sides by the gap of the squared norms."
NEEDS = frozenset({"sums", "pairs", "dictionary"})
# Four constants at 95 % each let any bound of this form hold in 80 % of any data: a finding is 10 points above that.
GUARANTEED, SMALLEST_EFFECT = 0.8, 0.1
RULE = (
    "Share of held-out cells (problem × layer) in which the signed bound, with ε, δ, ρ, κ fixed per layer on the other "
    "half of the problems (95 % order statistic) and c⋆ of the reasoning features, holds, vacuous on neither side. "
    "Vacuous if more than half of the cells are vacuous. Else margin = share − the largest of "
    f"{GUARANTEED} (in which such a bound holds on any data), untrained twin, random dictionary and (where the run has "
    f"one) early checkpoint: supported if its 95 % interval lies above {SMALLEST_EFFECT}, not supported if below, else "
    "inconclusive; inconclusive if a control cannot be computed."
)
TRIALS = 200


def evaluate(tables: Tables, resample: Resampling, seed: int) -> tuple[Evidence, pd.DataFrame]:
    """Judge the claim; the series hold one row per form, reader, held-out problem and layer (`held_out_bounds`).

    Raises NotJudged for fewer than 20 problems: each half needs 10.
    """
    readers = [reader for reader in READERS if tables.layers(reader)]
    problems = shared_problems(tables, readers)
    if len(problems) < 2 * FEWEST_PROBLEMS:
        raise NotJudged(
            f"it needs at least {2 * FEWEST_PROBLEMS} measured problems, half of them to fix the constants, "
            f"and this run has {len(problems)}"
        )
    order = [problems[index] for index in resample.rng.permutation(len(problems))]
    fixing, held_out = sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])
    series = pd.concat(
        [held_out_bounds(tables, reader, fixing, held_out) for reader in readers], ignore_index=True
    )
    weights = resample(len(held_out))

    def share(reader: str, form: str, column: str) -> Draws:
        """Share of a reader's cells in which a column is true, in every draw of held-out problems."""
        rows = series[(series["reader"] == reader) & (series["form"] == form)]
        return weighted_means(
            weights, rows[column].to_numpy(dtype=float).reshape(len(held_out), -1).mean(axis=1)
        )

    series["says"] = series["holds"] & ~series["vacuous"]
    ours, vacuous = share("model", SIGNED, "says"), share("model", SIGNED, "vacuous")
    controls = {
        READER_NAMES[reader]: share(reader, SIGNED, "says") if reader in readers else None
        for reader in null_readers(tables)
    }
    verdict, decision = judge({"": Form(ours, controls)}, null=GUARANTEED, smallest_effect=SMALLEST_EFFECT)
    others = {
        "beside: holds, counting vacuous cells": share("model", SIGNED, "holds"),
        "beside: vacuous": vacuous,
        **{
            f"beside: {form}: holds and says something": share("model", form, "says")
            for form in (PLUS, PAPERS, NORMS, SQUARES)
        },
        "beside: paper's thresholds: holds, counting vacuous cells": share("model", PAPERS, "holds"),
        "beside: without slack, √g ≤ S ≤ √(k g) on I⁺": share("model", PLUS, "slack_free_holds"),
    }
    readers_beside = [beside(name, draws) for name, draws in controls.items()]
    rows_beside = [beside(name, draws) for name, draws in others.items()]
    evidence = Evidence(
        claim=NAME,
        statement=STATEMENT,
        verdict=VACUOUS if vacuous[0] > 0.5 else verdict,
        rule=RULE,
        estimate=float(ours[0]),
        unit="share of held-out cells in which the bound holds and says something",
        interval=interval(ours),
        n=len(held_out),
        n_unit="held-out problems",
        controls=(*readers_beside, *rows_beside, *broken_assumptions(resample.rng)),
        decision=decision,
        seed=seed,
        note=_note(series),
    )
    return evidence, series


def broken_assumptions(rng: np.random.Generator) -> list[Control]:
    """Share of synthetic pairs (k = 2) in which √g ≤ S ≤ √(kg) holds: all of them, unless an assumption is broken.

    Interval: exact binomial (Clopper-Pearson) over the trials.
    """
    k = np.array([2.0])
    controls = []
    for name, planted in (
        {"exact": EXACT} | {f"{name} broken": planted for name, planted in BROKEN.items()}
    ).items():
        pairs = [synthetic_pair(rng, planted, k=2) for _ in range(TRIALS)]
        held = sum(bool(slack_free_bound(pair.lengths().gap, k).holds(pair.s).all()) for pair in pairs)
        low, high = binomtest(held, TRIALS).proportion_ci()
        label = f"beside: synthetic, {name}: without slack holds"
        controls.append(Control(label, held / TRIALS, (float(low), float(high))))
    return controls


def _note(series: pd.DataFrame) -> str:
    cells = series[(series["reader"] == "model") & (series["form"] == SIGNED)]
    reasons = cells.loc[cells["vacuous"], "why_vacuous"].value_counts()
    why = "; ".join(f"{reason}: {count}" for reason, count in reasons.items())
    s, lower, upper = cells["s"], cells["lower"], cells["upper"]
    below = (s / lower)[lower > 0]
    above = (upper / s)[np.isfinite(upper) & (s > 0)]
    sentences = [
        f"{int(cells['vacuous'].sum())} of {len(cells)} held-out cells are vacuous"
        + (f" ({why})." if why else "."),
        f"The gap g is negative in {(cells['gap'] < 0).mean():.0%} of the cells, S in {(s < 0).mean():.0%}.",
        f"Tightness (medians): S is {below.median():.2f} × the lower half where that is positive ({len(below)} cells)."
        if len(below)
        else "The lower half is nowhere positive.",
        f"The upper half is {above.median():.2f} × S where it is finite ({len(above)} cells)."
        if len(above)
        else "The upper half is nowhere finite.",
        "Equal orthogonal features meet S = √(k g), so Θ hides a factor √k.",
    ]
    return " ".join(sentences)


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """S against √g of held-out cells in units of ‖h_N‖, with the theorem's curves at the median constants."""
    cells = series[(series["reader"] == "model") & (series["form"] == SIGNED)]
    scale = np.sqrt(cells["h_no_think_sq"])
    x, y = np.sign(cells["gap"]) * np.sqrt(cells["gap"].abs()) / scale, cells["s"] / scale
    for shown, marker, colour, label in (
        (cells["says"], "o", BLUE, "holds"),
        (cells["holds"] & cells["vacuous"], ".", GREY, "vacuous"),
        (~cells["holds"], "x", VERMILION, "violated"),
    ):
        axes.plot(
            x[shown], y[shown], marker, color=colour, markersize=3, label=f"{label} ({int(shown.sum())})"
        )
    grid = np.linspace(0, max(float(x.max()), 0.1) * 1.05, 200)
    omega, rho, c = (
        float(values.median()) for values in (cells["omega"] / scale**2, cells["rho"], cells["c"])
    )
    curves = signed_bound(grid**2, *(np.full(len(grid), value) for value in (omega, rho, c)))
    axes.plot(grid, curves.lower, color=BLACK, linestyle="-", label="lower half (median constants)")
    if np.isfinite(curves.upper).any():
        axes.plot(grid, curves.upper, color=BLACK, linestyle="--", label="upper half")
    else:
        axes.plot([], [], color=BLACK, linestyle="--", label="upper half: ∞")
    axes.plot(grid, grid, color=GREY, linestyle=":", label="S = √g")
    left, bottom = min(float(x.min()) * 1.05, 0.0), min(float(y.min()) * 1.05, 0.0)
    silent = min(float(np.sqrt(omega)), grid[-1])
    axes.axvspan(left, silent, color="#EEEEEE", zorder=0, linewidth=0, label="slack exceeds the gap")
    axes.set_xlim(left, grid[-1])
    axes.set_ylim(bottom, max(float(y.max()), grid[-1]) * 1.15)
    axes.set_xlabel(f"√g / ‖h_N‖, −√−g where g < 0 (n = {evidence.n} {evidence.n_unit})")
    axes.set_ylabel("S / ‖h_N‖")
    axes.legend()
