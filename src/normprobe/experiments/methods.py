"""Do ALRR, ERSS and LRS improve accuracy? A sweep on a tuning split, then every treatment on held-out problems.

Each part is a file of its own, made by worker processes; a killed evaluation resumes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from normprobe.experiments.method_parts import (
    MethodInputs,
    method_treatments,
    plain_treatments,
    sample,
    try_setting,
)
from normprobe.experiments.method_settings import Setting, papers, sensitivity, sweep
from normprobe.experiments.selectors import select_all
from normprobe.problems.source import Regime
from normprobe.runs.jobs import TABLE, JobRunner
from normprobe.runs.layout import FILES

_MethodJob = Callable[[MethodInputs], pd.DataFrame]
SWEPT = ("ALRR", "ERSS", "CAA")


def fill_methods(
    folder: Path, inputs: MethodInputs, *, processes: int | None = None, progress: bool = True
) -> None:
    """Write the tables of the stage methods/ into `folder`. Resumes part by part. processes: None: this one alone."""
    profile, plan, seed = inputs.profile, inputs.study.methods, inputs.study.seed
    main, *others = inputs.regimes
    parts = folder / "parts"
    grid: dict[str, _MethodJob] = {}
    for regime in (main, *others):
        grid |= _tries("tune", regime, sweep(profile), "tune", plan.tune)
    knobs = sensitivity(profile)
    tables: dict[str, pd.DataFrame] = {}
    with JobRunner(
        parts,
        TABLE,
        label="methods",
        total=len(grid) + len(papers(profile)) + len(SWEPT) + 2 + 4 * plan.samples + 1 + len(knobs),
        processes=processes,
        progress=progress,
    ) as runner:

        def done(label: str, jobs: Mapping[str, _MethodJob]) -> pd.DataFrame:
            """The results of these jobs in one table."""
            results = runner.run({name: partial(job, inputs) for name, job in jobs.items()}, label=label)
            return pd.concat(results.values(), ignore_index=True)

        swept = tables["sweep"] = summary(done("sweep", grid))
        tuned = {method: best(swept, method, main.name) for method in SWEPT}
        both = (tuned["ALRR"], tuned["ERSS"])
        treatments: dict[str, _MethodJob] = {"plain": plain_treatments}
        treatments |= {f"paper {s.name}": partial(method_treatments, (s,), None) for s in papers(profile)}
        for s in tuned.values():
            treatments[f"tuned {s.name}"] = partial(method_treatments, (s,), rates(swept, s, main.name))
        treatments[" ".join(["tuned", *(s.name for s in both)])] = partial(method_treatments, both, {})
        tables["method_treatments"] = done("held-out problems", treatments)
        samples = done("samples", {f"sample {i}": partial(sample, i, ()) for i in range(plan.samples)})
        tables["selection"] = select_all(samples, seed)
        under = done(
            "combinations",
            {
                " ".join(["under", str(i), *(s.name for s in settings)]): partial(sample, i, settings)
                for settings in ((both[0],), (both[1],), both)
                for i in range(plan.samples)
            },
        )
        tables["combinations"] = _combinations(tables["method_treatments"], tables["selection"], under, seed)
        promised: dict[str, _MethodJob] = {}
        for regime in others:
            promised |= _tries("test", regime, promising(swept, regime.name), "test", plan.test)
        # Empty where the source has one regime: there is no other to confirm a setting in.
        tables["confirmed"] = pd.DataFrame(columns=_SUMMARY)
        if promised:
            tables["confirmed"] = summary(done("promising settings", promised))
        varied = _tries("part", main, knobs, "test", plan.part)
        turned = pd.DataFrame(
            [{"name": s.name, "knob": knob, "value": value} for s, (knob, value) in knobs.items()]
        )
        tables["sensitivity"] = summary(done("sensitivity", varied)).merge(turned, on="name")
    for name, table in tables.items():
        FILES[name].write(folder, table)
    shutil.rmtree(parts)


def best(swept: pd.DataFrame, method: str, regime: str) -> Setting:
    """A method's setting of the highest accuracy on the tuning problems of a regime.

    Ties go to the setting that stands first in the sweep, the paper's own before all.
    """
    mine = swept[(swept["regime"] == regime) & (swept["method"] == method)]
    return Setting.from_json(str(mine.iloc[int(mine["accuracy"].to_numpy().argmax())]["setting"]))


def promising(swept: pd.DataFrame, regime: str) -> list[Setting]:
    """Of each method of the paper, the best setting in a regime, if it did better there than the plain model."""
    found = [best(swept, method, regime) for method in ("ALRR", "ERSS")]
    rows = swept[(swept["regime"] == regime) & (swept["accuracy"] > swept["plain"])]
    return [setting for setting in found if setting.name in set(rows["name"])]


def rates(swept: pd.DataFrame, setting: Setting, regime: str) -> dict[int, float]:
    """By layer, the share of tokens that a setting acts on in a regime."""
    row = swept[(swept["regime"] == regime) & (swept["name"] == setting.name)].iloc[0]
    return {int(layer): rate for layer, rate in json.loads(row["rates"]).items()}


def summary(tried: pd.DataFrame) -> pd.DataFrame:
    """A row per regime and setting: accuracy, the plain model's on the same problems, how often it acted, cost.

    gained, lost: problems that only the method, only the plain model gets right. trigger_rate: mean over its layers of
    the share of tokens that it acts on. tokens: generated, as a multiple of the plain model's.
    """
    rows = []
    for regime, tables in tried.groupby("regime", sort=False):
        unchanged = tables[tables["name"] == "plain"].set_index("problem_id")
        before = unchanged["correct"].astype(bool)
        for name, table in tables[tables["name"] != "plain"].groupby("name", sort=False):
            after = table.set_index("problem_id")["correct"].astype(bool).reindex(before.index)
            first = table.iloc[0]
            by_layer = json.loads(first["rates"])
            rows.append(
                {
                    "regime": regime,
                    "method": first["method"],
                    "name": name,
                    "setting": first["setting"],
                    "n": len(table),
                    "accuracy": after.mean(),
                    "plain": before.mean(),
                    "gained": int((after & ~before).sum()),
                    "lost": int((~after & before).sum()),
                    "rates": first["rates"],
                    "trigger_rate": sum(by_layer.values()) / len(by_layer),
                    "extra_passes": first["extra_passes"],
                    "extra_flops": first["extra_flops"],
                    "tokens": table["n_tokens"].sum() / unchanged["n_tokens"].sum(),
                }
            )
    return pd.DataFrame(rows, columns=_SUMMARY)


_SUMMARY = (
    "regime method name setting n accuracy plain gained lost rates trigger_rate extra_passes extra_flops tokens"
).split()


def _combinations(
    treatments: pd.DataFrame, selection: pd.DataFrame, under: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Right or wrong under every combination of the methods, on the problems that all were tried on.

    Greedy: one answer. Sampled: one sample at random; LRS: the best of as many samples by `lrs_last_third`.
    """
    shared = set(under["problem_id"])
    frames = [
        treatments[treatments["treatment"] == treatment].assign(combination=f"{treatment}, greedy")
        for treatment in ("plain", "ALRR", "ERSS", "ALRR + ERSS")
    ]
    by_treatment = {"plain": selection}
    by_treatment |= {
        str(treatment): select_all(table, seed) for treatment, table in under.groupby("treatment", sort=False)
    }
    for treatment, chosen in by_treatment.items():
        for selector, label in (
            ("random", f"{treatment}, sampled"),
            ("lrs_last_third", f"{treatment} + LRS"),
        ):
            frames.append(chosen[chosen["selector"] == selector].assign(combination=label))
    table = pd.concat(frames, ignore_index=True)
    return table.loc[table["problem_id"].isin(shared), ["combination", "problem_id", "correct"]]


def _tries(
    label: str, regime: Regime, settings: Iterable[Setting], split: Literal["tune", "test"], n: int
) -> dict[str, _MethodJob]:
    """The jobs that try the plain model and these settings in a regime."""
    return {
        f"{label} {regime.name} {'plain' if setting is None else setting.name}": partial(
            try_setting, regime, setting, split, n
        )
        for setting in (None, *settings)
    }
