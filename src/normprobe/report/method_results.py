"""What `normprobe evaluate` found, in numbers: treatments, regimes, single settings, combinations, failures."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from normprobe.report.accuracy_table import wilson
from normprobe.report.figure import HEIGHT, Drawing
from normprobe.report.findings import NothingToDraw
from normprobe.report.table import count, number, with_interval
from normprobe.runs.tables import Tables
from normprobe.stats.estimate import Estimate
from normprobe.stats.paired import mcnemar, paired_difference
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
    "held-out problems (for the first regime they are the treatments above). A gain that was only the best of "
    "many does not "
    "come back."
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
    "thought that never closes (left)."
)
SELECTORS = (
    "Accuracy of the sample that each selector takes, on the same samples of the same held-out problems. Red: scores "
    "that read the norm. Grey: what reads none. Blue: a sample at random. Green: the most that any selector could do. "
    "Lines: 95 % Wilson intervals."
)

TASKS = (
    "Tasks of lm-evaluation-harness, with the paper's settings and their baselines. Gain: the task's metric less the "
    "plain model's on the same documents, with its 95 % interval and its p (McNemar's exact; sign flips where the "
    "metric is no right or wrong). Acted on: share of tokens, mean over the layers."
)


def read(tables: Tables, name: str) -> pd.DataFrame:
    """A table of the evaluation. Raises NothingToDraw for a run that was not evaluated."""
    if not tables.has(name):
        raise NothingToDraw(f"the methods were not evaluated; `normprobe evaluate {tables.path}` does it")
    return getattr(tables, name)


def treatment_table(treatments: pd.DataFrame) -> tuple[tuple[str, ...], list[list[str]]]:
    """Head and a row of cells per treatment; see `TREATMENTS`."""
    plain = treatments[treatments["treatment"] == PLAIN].set_index("problem_id")
    rows = []
    for treatment, table in treatments.groupby("treatment", sort=False):
        gain, won, lost = _gain(table, plain)
        first = table.iloc[0]
        by_layer = json.loads(first["rates"])
        rows.append(
            [
                str(treatment),
                f"{table['correct'].astype(float).mean():.1%}",
                "–" if treatment == PLAIN else with_interval(gain.value, gain.interval),
                "–" if treatment == PLAIN else _p(gain),
                f"{won} / {lost}",
                f"{sum(by_layer.values()) / len(by_layer):.2%}",
                f"{first['extra_passes']:.2%} / {first['extra_flops']:.2%}",
                f"{table['n_tokens'].sum() / plain['n_tokens'].sum():.3f}",
                f"{first['seconds'] / plain['seconds'].iloc[0]:.2f}",
            ]
        )
    head = (
        "Treatment",
        "Accuracy",
        "Gain",
        "p",
        "Won / lost",
        "Acted on",
        "Extra passes / FLOPs",
        "Tokens",
        "Time",
    )
    return head, rows


def regime_table(swept: pd.DataFrame, confirmed: pd.DataFrame) -> tuple[tuple[str, ...], list[list[str]]]:
    """Head and a row of cells per regime and method of the paper; see `REGIMES`."""
    held_out = {(row["regime"], row["name"]): row for row in confirmed.to_dict("records")}
    rows = []
    for (regime, _), tried in swept.groupby(["regime", "method"], sort=False):
        best = tried.iloc[int(tried["accuracy"].to_numpy().argmax())]
        again = held_out.get((regime, best["name"]))
        rows.append(
            [
                str(regime),
                str(best["name"]),
                count(len(tried)),
                f"{best['plain']:.1%}",
                f"{best['gained']} / {best['lost']} of {best['n']}",
                "–" if again is None else _counted(again),
            ]
        )
    head = ("Regime", "Best setting", "Of", "Plain", "Won / lost, tuning", "Held-out gain")
    return head, rows


def task_table(tasks: pd.DataFrame) -> tuple[tuple[str, ...], list[list[str]]]:
    """Head and a row of cells per task and treatment: the gain over the plain model on the same documents."""
    rows = []
    for (task, metric), table in tasks.groupby(["task", "metric"], sort=False):
        plain = table[table["treatment"] == PLAIN].set_index("problem_id")["correct"]
        for treatment, own in table.groupby("treatment", sort=False):
            after = own.set_index("problem_id")["correct"].reindex(plain.index).to_numpy()
            before = plain.to_numpy()
            if set(np.unique(np.concatenate([before, after]))) <= {0.0, 1.0}:
                gain = mcnemar(after == 1, before == 1, n_unit="documents")
            else:
                rng = np.random.default_rng(0)
                gain = paired_difference(after, before, rng, unit=str(metric), n_unit="documents")
            acted = own["acted"].iloc[0]
            rows.append(
                [
                    str(task),
                    str(metric),
                    str(treatment),
                    count(len(own)),
                    number(after.mean()),
                    "–" if treatment == PLAIN else with_interval(gain.value, gain.interval),
                    "–" if treatment == PLAIN else _p(gain),
                    "–" if np.isnan(acted) else f"{acted:.2%}",
                ]
            )
    return ("Task", "Metric", "Treatment", "n", "Mean", "Gain", "p", "Acted on"), rows


def sensitivity(tables: Tables) -> Drawing:
    """The figure of `draw_sensitivity`."""
    varied = read(tables, "sensitivity")
    panels = varied["knob"].nunique()
    return Drawing(
        "Sensitivity", SENSITIVITY, lambda axes: draw_sensitivity(axes, varied), panels, height=0.6 * HEIGHT
    )


def selectors(tables: Tables) -> Drawing:
    """The figure of `draw_selectors`."""
    table = read(tables, "selection")
    return Drawing("Selectors", SELECTORS, lambda axes: draw_selectors(axes[0], table), height=1.4 * HEIGHT)


def combinations(tables: Tables) -> Drawing:
    """The figure of `draw_combinations`."""
    table = read(tables, "combinations")
    return Drawing("Combinations", COMBINATIONS, lambda axes: draw_combinations(axes[0], table))


def failures(tables: Tables) -> Drawing:
    """The figure of `draw_failures`."""
    table = read(tables, "method_treatments")
    return Drawing("Failures", FAILURES, lambda axes: draw_failures(axes[0], table), height=1.2 * HEIGHT)


DRAWINGS = (sensitivity, selectors, combinations, failures)


def draw_selectors(axes: Any, selection: pd.DataFrame) -> None:
    """Accuracy by selector, the best on top."""
    right = selection.groupby("selector")["correct"].agg(["mean", "size"]).astype(float).sort_values("mean")
    for height, (name, row) in enumerate(right.iterrows()):
        reads_norm = "lrs_" in str(name) or name == "mean_norm"
        colour = {"random": BLUE, "oracle": GREEN}.get(str(name), VERMILION if reads_norm else GREY)
        _point(axes, row["mean"], row["size"], height, colour)
    axes.set_yticks(range(len(right)), [str(name) for name in right.index], fontsize=6)
    axes.set_xlabel(f"accuracy (n = {count(int(right['size'].max()))} problems)")


def draw_sensitivity(panels: Sequence[Any], varied: pd.DataFrame) -> None:
    """A panel per knob."""
    for axes, (knob, rows) in zip(panels, varied.groupby("knob", sort=False), strict=True):
        for place, row in enumerate(rows.sort_values("value").to_dict("records")):
            gain = _estimate(row["gained"], row["lost"], row["n"])
            axes.vlines(place, *gain.interval, color=VERMILION, linewidth=1.2)
            axes.plot(place, gain.value, "o", color=VERMILION)
        axes.axhline(0.0, color=BLUE, linestyle="--", linewidth=0.8)
        ordered = rows.sort_values("value")
        labels = [
            f"{value:g}\n{_share(rate)}"
            for value, rate in zip(ordered["value"], ordered["trigger_rate"], strict=True)
        ]
        axes.set_xticks(range(len(ordered)), labels)
        axes.margins(x=0.15)
        axes.set_xlabel(str(knob))
        axes.set_ylabel("accuracy gained")


def draw_combinations(axes: Any, combinations: pd.DataFrame) -> None:
    """A row per combination in the order of the table; grey the plain model."""
    right = combinations.groupby("combination", sort=False)["correct"].agg(["mean", "size"]).astype(float)
    for height, (name, row) in enumerate(right.iloc[::-1].iterrows()):
        colour = GREY if str(name).startswith(PLAIN) else VERMILION
        _point(axes, row["mean"], row["size"], height, colour)
    axes.set_yticks(range(len(right)), [str(name) for name in right.index[::-1]])
    axes.set_xlabel(f"accuracy (n = {count(int(right['size'].max()))} problems)")


def draw_failures(axes: Any, treatments: pd.DataFrame) -> None:
    """Won to the right, lost to the left, by treatment; the treatments in the order of the table."""
    plain = treatments[treatments["treatment"] == PLAIN].set_index("problem_id")
    names = [str(treatment) for treatment in treatments["treatment"].unique() if treatment != PLAIN][::-1]
    for height, treatment in enumerate(names):
        table = treatments[treatments["treatment"] == treatment].set_index("problem_id").reindex(plain.index)
        before, after = (t["correct"].astype(bool).to_numpy() for t in (plain, table))
        silent = (table["answer"] == "").to_numpy()
        won, lost, never = (
            float(share.mean()) for share in (after & ~before, before & ~after & ~silent, before & silent)
        )
        axes.barh(height, won, color=GREEN, height=0.7, label="won" if not height else None)
        axes.barh(
            height, -lost, color=ORANGE, height=0.7, label="lost: a wrong value" if not height else None
        )
        axes.barh(
            height, -never, left=-lost, color=VERMILION, height=0.7, hatch="////", edgecolor="white",
            label="lost: the thought never closes" if not height else None,
        )  # fmt: skip
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xlabel(f"share of {count(len(plain))} held-out problems")
    axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.13), ncols=3)


def _gain(table: pd.DataFrame, plain: pd.DataFrame) -> tuple[Estimate, int, int]:
    after = table.set_index("problem_id")["correct"].astype(bool).reindex(plain.index).to_numpy()
    before = plain["correct"].astype(bool).to_numpy()
    return mcnemar(after, before), int((after & ~before).sum()), int((~after & before).sum())


def _estimate(gained: int, lost: int, n: int) -> Estimate:
    """A paired gain from its counts."""
    after, before = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    after[:gained], before[gained : gained + lost] = True, True
    return mcnemar(after, before)


def _counted(row: Mapping[Hashable, Any]) -> str:
    gain = _estimate(row["gained"], row["lost"], row["n"])
    counts = f"{row['gained']} / {row['lost']} of {row['n']}"
    return f"{with_interval(gain.value, gain.interval)} ({counts}, p {_p(gain)})"


def _p(gain: Estimate) -> str:
    return "–" if gain.p is None else "< 0.001" if gain.p < 0.001 else number(gain.p)


def _share(rate: float) -> str:
    return f"{rate:.0%}" if rate >= 0.1 or rate == 0 else f"{rate:.1%}"


def _point(axes: Any, share: float, n: float, height: int, colour: str) -> None:
    axes.hlines(height, *wilson(share, int(n)), color=colour, linewidth=1.2)
    axes.plot(share, height, "o", color=colour)
