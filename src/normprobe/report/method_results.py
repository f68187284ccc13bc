"""What `normprobe evaluate` found, in numbers: treatments, regimes, single settings, combinations, failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.measure.drawing import legend_below
from normprobe.labels import in_words
from normprobe.report.accuracy_table import wilson
from normprobe.report.figure import HEIGHT, Drawing
from normprobe.report.findings import NothingToDraw
from normprobe.report.table import Cells, cells, count, number, with_interval
from normprobe.runs.tables import Tables
from normprobe.stats.paired import Estimate, mcnemar, mcnemar_of
from normprobe.style import BLUE, GREEN, GREY, ORANGE, VERMILION

PLAIN = "plain"
TREATMENTS = (
    "Held-out problems, greedy. Gain: accuracy less plain generation's on the same problems, with its 95 % interval "
    "and McNemar's exact p. Won, lost: problems that only the treatment, only plain generation gets right. "
    "Acted on: share of tokens, mean over the layers. Extra passes and FLOPs: relative to those of the generated "
    "tokens. Tokens, time: as multiples of plain generation's (CPU time of one run, which varies by a fifth on a "
    "shared machine)."
)
REGIMES = (
    "By regime and method, the setting that did best on tuning problems; where it beat plain generation, the same on "
    "held-out problems (for the first regime they are the treatments above). A gain that was only the best of many "
    "does not come back."
)
SENSITIVITY = (
    "Accuracy gained over plain generation on held-out problems while one knob is turned, with its 95 % interval. "
    "Beneath each, the share of tokens acted on."
)
COMBINATIONS = (
    "Accuracy of the methods alone and together on held-out problems: greedy; one sample at temperature 1; the best of "
    "as many samples by LRS. Lines: 95 % Wilson intervals."
)
FAILURES = (
    "Held-out problems whose outcome a method changes, as shares of all: won (right); lost to a wrong value, or to a "
    "thought that never closes (left). Lines: 95 % Wilson intervals of what is won and of all that is lost."
)
SELECTORS = (
    "Accuracy of the sample that each selector takes, on the same samples of the same held-out problems. Red: scores "
    "that read the norm, or a length that grows with it. Grey: what reads none. Blue: a sample at random. Green: the "
    "most that any selector could do. Lines: 95 % Wilson intervals. In brackets what is written for the choice, as a "
    "share of the tokens of all samples, where that is less than all."
)


def read(tables: Tables, name: str) -> pd.DataFrame:
    """A table of the evaluation. Raises NothingToDraw for a run that was not evaluated."""
    if not tables.has(name):
        raise NothingToDraw(f"the methods were not evaluated; `normprobe evaluate {tables.path}` does it")
    return getattr(tables, name)


def gain_cells(gain: Estimate, treatment: Hashable) -> dict[str, str]:
    """The cells of a gain over plain generation, which itself has none."""
    if treatment == PLAIN:
        return {"Gain": "–", "p": "–"}
    return {"Gain": with_interval(gain.value, gain.interval), "p": _p(gain)}


def treatment_table(treatments: pd.DataFrame) -> Cells:
    """A row per treatment; see `TREATMENTS`."""
    plain = treatments[treatments["treatment"] == PLAIN].set_index("problem_id")
    before = plain["correct"].astype(bool).to_numpy()
    rows = []
    for treatment, table in treatments.groupby("treatment", sort=False):
        after = table.set_index("problem_id")["correct"].astype(bool).reindex(plain.index).to_numpy()
        first = table.iloc[0]
        by_layer = json.loads(first["rates"])
        rows.append(
            {
                "Treatment": in_words(str(treatment)),
                "Accuracy": f"{table['correct'].astype(float).mean():.1%}",
                **gain_cells(mcnemar(after, before), treatment),
                "Won / lost": f"{int((after & ~before).sum())} / {int((~after & before).sum())}",
                "Acted on": f"{sum(by_layer.values()) / len(by_layer):.2%}",
                "Extra passes / FLOPs": f"{first['extra_passes']:.2%} / {first['extra_flops']:.2%}",
                "Tokens": f"{table['n_tokens'].sum() / plain['n_tokens'].sum():.3f}",
                "Time": f"{first['seconds'] / plain['seconds'].iloc[0]:.2f}",
            }
        )
    return cells(rows)


def regime_table(swept: pd.DataFrame, confirmed: pd.DataFrame) -> Cells:
    """A row per regime and method of the paper; see `REGIMES`."""
    held_out = {(row["regime"], row["name"]): _counted(row) for row in confirmed.to_dict("records")}
    rows = []
    for (regime, _), tried in swept.groupby(["regime", "method"], sort=False):
        best = tried.iloc[int(tried["accuracy"].to_numpy().argmax())]
        rows.append(
            {
                "Regime": str(regime),
                "Best setting": in_words(str(best["name"])),
                "Of": count(len(tried)),
                "Plain": f"{best['plain']:.1%}",
                "Won / lost, tuning": f"{best['gained']} / {best['lost']} of {best['n']}",
                "Held-out gain": held_out.get((regime, best["name"]), "–"),
            }
        )
    return cells(rows)


def draw_selectors(axes: Any, selection: pd.DataFrame) -> None:
    """Accuracy by selector, the best on top."""

    def colour(name: str) -> str:
        reads_norm = "lrs_" in name or name in ("mean_norm", "lt_net_change", "lt_cumulative_change")
        return {"random": BLUE, "oracle": GREEN}.get(name, VERMILION if reads_norm else GREY)

    right = selection.groupby("selector")["correct"].agg(["mean", "size"]).astype(float).sort_values("mean")
    _points(axes, right, colour, fontsize=6)
    if "tokens" in selection:  # evaluations of earlier versions did not count them
        written = selection.groupby("selector")["tokens"].sum()
        shares = (written / written.max()).reindex(right.index)
        axes.set_yticks(
            range(len(right)),
            [f"{name} ({share:.0%})" if share < 1 else str(name) for name, share in shares.items()],
        )


def draw_combinations(axes: Any, combinations: pd.DataFrame) -> None:
    """A row per combination in the order of the table; grey the plain model."""
    right = combinations.groupby("combination", sort=False)["correct"].agg(["mean", "size"]).astype(float)
    _points(axes, right.iloc[::-1], lambda name: GREY if name.startswith(PLAIN) else VERMILION)


def _points(axes: Any, right: pd.DataFrame, colour: Callable[[str], str], **text: Any) -> None:
    """A row per name, from below: its accuracy with Wilson's interval."""
    names = [str(name) for name in right.index]
    for height, (name, share, n) in enumerate(zip(names, right["mean"], right["size"], strict=True)):
        axes.hlines(height, *wilson(share, int(n)), color=colour(name), linewidth=1.2)
        axes.plot(share, height, "o", color=colour(name))
    axes.set_yticks(range(len(names)), names, **text)
    axes.set_xlabel(f"accuracy (n = {count(int(right['size'].max()))} problems)")


def draw_sensitivity(panels: Sequence[Any], varied: pd.DataFrame) -> None:
    """A panel per knob."""
    for axes, (knob, rows) in zip(panels, varied.groupby("knob", sort=False), strict=True):
        ordered = rows.sort_values("value").to_dict("records")
        for place, row in enumerate(ordered):
            gain = mcnemar_of(row["gained"], row["lost"], row["n"])
            axes.vlines(place, *gain.interval, color=VERMILION, linewidth=1.2)
            axes.plot(place, gain.value, "o", color=VERMILION)
        axes.axhline(0.0, color=BLUE, linestyle="--", linewidth=0.8)
        labels = [f"{row['value']:g}\n{_share(row['trigger_rate'])}" for row in ordered]
        axes.set_xticks(range(len(ordered)), labels)
        axes.margins(x=0.15)
        axes.set_xlabel(str(knob))
        axes.set_ylabel("accuracy gained")


def draw_failures(axes: Any, treatments: pd.DataFrame) -> None:
    """Won to the right, lost to the left, by treatment; the treatments in the order of the table."""
    plain = treatments[treatments["treatment"] == PLAIN].set_index("problem_id")
    names = [str(treatment) for treatment in treatments["treatment"].unique() if treatment != PLAIN][::-1]
    for height, treatment in enumerate(names):
        table = treatments[treatments["treatment"] == treatment].set_index("problem_id").reindex(plain.index)
        before, after = (t["correct"].astype(bool).to_numpy() for t in (plain, table))
        silent = (table["answer"] == "").to_numpy()
        won, lost, never = (
            (after & ~before).mean(),
            (before & ~after & ~silent).mean(),
            (before & silent).mean(),
        )
        axes.barh(height, won, color=GREEN, height=0.7, label="won")
        axes.barh(height, -lost, color=ORANGE, height=0.7, label="lost: a wrong value")
        axes.barh(
            height, -never, left=-lost, color=VERMILION, height=0.7, hatch="////", edgecolor="white",
            label="lost: the thought never closes",
        )  # fmt: skip
        for share, side in ((won, 1), (lost + never, -1)):
            ends = side * np.array(wilson(share, len(plain)))
            axes.hlines(height, *ends, color="black", linewidth=0.8)
        if height == 0:
            legend_below(axes)
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xlabel(f"share of {count(len(plain))} held-out problems")


def _drawing(
    title: str,
    caption: str,
    table: str,
    draw: Callable[[Any, pd.DataFrame], None],
    height: float = 1.0,
    by: str = "",
) -> Callable[[Tables], Drawing]:
    """The figure that `draw` makes of one table, in one panel, or in one for each value of the column `by`."""

    def drawing(tables: Tables) -> Drawing:
        rows = read(tables, table)
        panels = rows[by].nunique() if by else 1
        n = rows["n"].max() if by else rows["problem_id"].nunique()
        return Drawing(
            title,
            f"{caption} n = {count(int(n))} problems.",
            lambda axes: draw(axes if by else axes[0], rows),
            panels,
            height=height * HEIGHT,
        )

    return drawing


sensitivity = _drawing("Sensitivity", SENSITIVITY, "sensitivity", draw_sensitivity, 0.6, by="knob")
selectors = _drawing("Selectors", SELECTORS, "selection", draw_selectors, 2.0)
combinations = _drawing("Combinations", COMBINATIONS, "combinations", draw_combinations)
failures = _drawing("Failures", FAILURES, "method_treatments", draw_failures, 1.2)
DRAWINGS = {
    "sensitivity": sensitivity,
    "selection": selectors,
    "combinations": combinations,
    "method_treatments": failures,
}
"""The figures of the report, by the table that each is drawn from."""


def _counted(row: Mapping[Hashable, Any]) -> str:
    gain = mcnemar_of(row["gained"], row["lost"], row["n"])
    counts = f"{row['gained']} / {row['lost']} of {row['n']}"
    return f"{with_interval(gain.value, gain.interval)} ({counts}, p {_p(gain)})"


def _p(gain: Estimate) -> str:
    return "< 0.001" if gain.p < 0.001 else number(gain.p)


def _share(rate: float) -> str:
    return f"{rate:.0%}" if rate >= 0.1 or rate == 0 else f"{rate:.1%}"
