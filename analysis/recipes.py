"""What of a training decides the sign of the norm? tiny-thinkers of different recipes, judged on the same problems.

`python analysis/recipes.py train DIR` trains them (on a GPU: --device cuda, all at once); `python analysis/recipes.py
judge DIR` lets each answer, judges the claims that need no dictionary, and writes recipes.csv, .pdf and .png into DIR.
Both go on where they were stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from normprobe import style
from normprobe.claims.measure.drawing import legend_below
from normprobe.claims.registry import BY_NAME, evaluate_all
from normprobe.config import ProblemSettings, Study
from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.model_settings import ModelSettings
from normprobe.problems.source import FEWEST
from normprobe.report.figure import Drawing
from normprobe.runs.tables import Tables
from normprobe.verify import run_until

RECIPES: Mapping[str, tuple[str, ...]] = {
    "bundled": (),
    "weight decay 0": ("--weight-decay", "0"),
    "AdamW": ("--optimiser", "adamw"),
    "AdamW, weight decay 0": ("--optimiser", "adamw", "--weight-decay", "0"),
    "z-loss": ("--z-loss", "1e-3"),
    "thoughts weigh a quarter": ("--thought-weight", "0.25"),
    "thoughts weigh four times": ("--thought-weight", "4"),
}
"""Name → what a training has instead of the bundled recipe's values."""
REWARDS = "rewards"
"""From the bundled recipe's warm-up by rewards, instead of demonstrations."""
CLAIMS = ("thinking_norm_is_higher", "marks_critical_steps")
COLUMNS = ["recipe", "seed", "claim", "quantity", "value", "low", "high", "verdict", "think", "no_think"]


def folder(out: Path, recipe: str, seed: int) -> Path:
    """The directory of one training."""
    return out / f"{recipe.replace(', ', '_').replace(' ', '-')}_{seed}"


def train(out: Path, seeds: Sequence[int], device: str, steps: int | None) -> None:
    """Train all recipes for every seed: on a GPU at once, on a CPU one after the other.

    Raises NormprobeError if a training failed; the others are finished first.
    """
    length = [] if steps is None else ["--n-steps", str(steps)]
    supervised = {
        (name, seed): [
            *(sys.executable, "-m", "normprobe.training.tiny_thinker.train", *options, *length),
            *("--seed", str(seed), "--device", device, "--out", str(folder(out, name, seed))),
        ]
        for name, options in RECIPES.items()
        for seed in seeds
    }
    rewarded = {
        (REWARDS, seed): [
            *(sys.executable, "-m", "normprobe.training.tiny_thinker.grpo", "--seed", str(seed)),
            *("--start", str(folder(out, "bundled", seed) / "warmup"), "--device", device),
            *("--out", str(folder(out, REWARDS, seed))),
        ]
        for seed in seeds
    }
    failed = [key for commands in (supervised, rewarded) for key in _run(commands, at_once=device != "cpu")]
    if failed:
        names = ", ".join(folder(out, *key).name for key in failed)
        raise NormprobeError(f"expected trainings that end, got a failure in {names}; see log.txt there")


def _run(commands: Mapping[tuple[str, int], Sequence[str]], *, at_once: bool) -> list[tuple[str, int]]:
    """Run the programs, each with its output in its training's log.txt. Returns those that failed."""
    running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
    for key, command in commands.items():
        place = Path(command[-1])
        place.mkdir(parents=True, exist_ok=True)
        print(f"{place.name}: {place / 'log.txt'}", flush=True)
        with (place / "log.txt").open("ab") as log:
            running[key] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        if not at_once:
            running[key].wait()
    return [key for key, process in running.items() if process.wait() != 0]


def judge(out: Path, seeds: Sequence[int], n_measure: int) -> pd.DataFrame:
    """A row per training, claim and quantity (the claim's estimate, and each control by its label).

    Columns: `COLUMNS`; think, no_think: the share of measured problems answered rightly. A claim that rests on failed
    conditions has its reason as the verdict, and no numbers. Raises NormprobeError if a training is not finished.
    """
    rows: list[tuple[Any, ...]] = []
    for name in (*RECIPES, REWARDS):
        for seed in seeds:
            place = folder(out, name, seed)
            if not (place / "final").is_dir():
                raise NormprobeError(f"expected a finished training in {place}, got none; train it first")
            rows += [(name, seed, *row) for row in _judged(place, n_measure)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _judged(place: Path, n_measure: int) -> list[tuple[Any, ...]]:
    study = Study(
        model=ModelSettings(name=str(place / "final")),
        # Dictionaries and what they select play no part.
        problems=ProblemSettings(source="testbed", n_sae=FEWEST, n_select=FEWEST, n_measure=n_measure),
    )
    tables = Tables(run_until("traces", study, place / "run").path)
    measured = tables.responses[tables.responses["split"] == "measure"]
    right = measured.groupby("mode")["correct"].mean()
    scores = float(right["think"]), float(right["no_think"])
    judged = {evidence.claim: evidence for evidence in evaluate_all(tables, study.seed, place / "evidence")}
    rows: list[tuple[Any, ...]] = []
    for claim in CLAIMS:
        if (found := judged.get(claim)) is None:
            rows.append((claim, "estimate", float("nan"), float("nan"), float("nan"), "not judged", *scores))
            continue
        rows.append((claim, "estimate", found.estimate, *found.interval, found.verdict, *scores))
        rows += [
            (claim, control.label, control.estimate, *control.interval, found.verdict, *scores)
            for control in found.controls
            if control.decides and control.form == found.form
        ]
    return rows


def drawing(table: pd.DataFrame) -> Drawing:
    """A panel per claim: each training's estimate, with the strongest control in grey."""

    def draw(panels: list[Any]) -> None:
        for axes, claim in zip(panels, CLAIMS, strict=True):
            rows = table[table["claim"] == claim]
            names = list(dict.fromkeys(rows["recipe"]))
            axes.axvline(BY_NAME[claim].null, color=style.GREY, linewidth=0.6)
            for (name, seed), of_one in rows.groupby(["recipe", "seed"], sort=False):
                at = names.index(name) + 0.15 * float(str(seed))
                estimate = of_one[of_one["quantity"] == "estimate"].iloc[0]
                axes.plot(of_one["value"].iloc[1:], [at] * (len(of_one) - 1), "|", color=style.GREY)
                axes.plot([estimate["low"], estimate["high"]], [at, at], color=style.BLUE)
                axes.plot(
                    estimate["value"],
                    at,
                    "o",
                    color=style.VERDICT_COLOURS.get(estimate["verdict"], style.GREY),
                )
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.set_xlabel(textwrap.fill(BY_NAME[claim].unit, 44), x=1, ha="right")
        for verdict in dict.fromkeys(table["verdict"]):
            panels[-1].plot([], [], "o", color=style.VERDICT_COLOURS.get(verdict, style.GREY), label=verdict)
        legend_below(panels[-1], columns=3)

    return Drawing(
        title="Norm claims of tiny-thinkers trained by different recipes",
        caption=(
            f"{' and '.join(CLAIMS)} of tiny-thinkers trained by different recipes. Points: the claim's number, "
            "coloured by verdict; bars: 95 % intervals over problems; grey ticks: its controls; further seeds below "
            "the first."
        ),
        draw=draw,
        panels=len(CLAIMS),
        height=3.2,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("train", "judge"))
    parser.add_argument("out", type=Path, help="the directory of all trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--device", default="cpu", help="to train on: cpu or cuda")
    parser.add_argument("--steps", type=int, help="of each training (the recipe's own)")
    parser.add_argument("--problems", type=int, default=256, help="to judge on")
    given = parser.parse_args(argv)
    if given.action == "train":
        train(given.out, given.seeds, given.device, given.steps)
        return
    table = judge(given.out, given.seeds, given.problems)
    table.to_csv(given.out / "recipes.csv", index=False)
    drawing(table).save(given.out / "recipes")
    print(table[table["quantity"] == "estimate"].to_string(index=False))


if __name__ == "__main__":
    sys.exit(run_main(main))
