"""Do ALRR, ERSS and LRS improve accuracy? A sweep on a tuning split, then every arm on held-out problems.

Each part is a file of its own, made by worker processes; a killed evaluation resumes. What is left in RUN/methods/:
`sweep.parquet` (a row per regime and setting), `arms.parquet` (a row per held-out problem and arm), and
`selection.parquet` (a row per held-out problem and selector, all choosing among the same samples).
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from normprobe.evaluation.cells import GREEDY, REGIMES
from normprobe.evaluation.method_arms import Setting, papers, sweep
from normprobe.evaluation.method_parts import MethodArms, PlainArms, Plan, Samples, Sweep
from normprobe.evaluation.selectors import select_all
from normprobe.layer_profile import LayerProfile
from normprobe.runs import Run, atomic_write, config_hash

METHODS = ("ALRR", "ERSS")


QUICK = Plan(tune=8, test=24, samples=3)


def run_evaluation(
    run_path: Path, plan: Plan, *, processes: int | None = None, progress: bool = True
) -> Path:
    """Fill `run_path`/methods/ with whatever is missing; returns the folder.

    Raises NormprobeError if the run is not a finished one of `normprobe verify` on a model that knows the testbed.
    """
    run = Run.load(run_path)
    run["evidence"]
    profile = LayerProfile.load(run.path / "layer_profile.json")
    folder = run.path / "methods"
    parts = folder / config_hash({"plan": asdict(plan), "profile": asdict(profile)})[:12]
    parts.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(
        processes or os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        work = _Work(run.path, parts, plan, pool, progress)
        grid: dict[str, _Job] = {_file(c.name, "plain"): Sweep(c, None) for c in REGIMES}
        grid |= {_file(c.name, s.name): Sweep(c, s) for c in REGIMES for s in sweep(profile)}
        swept = summary(work.do("sweep", grid))
        chosen = best(swept)
        jobs: dict[str, _Job] = {"plain": PlainArms()}
        jobs |= {_file("paper", s.name): MethodArms(s) for s in papers(profile)}
        jobs |= {_file("tuned", s.name): MethodArms(s, rates(swept, s)) for s in chosen.values()}
        arms = work.do("held-out problems", jobs)
        samples = work.do("samples", {f"sample {i}": Samples(i) for i in range(plan.samples)})
    for name, table in (("sweep", swept), ("arms", arms), ("selection", select_all(samples, plan.seed))):
        with atomic_write(folder / f"{name}.parquet") as unfinished:
            table.to_parquet(unfinished, index=False)
    return folder


def best(swept: pd.DataFrame) -> dict[str, Setting]:
    """By method, the setting of the highest accuracy on the tuning problems of the cell where the verdict is taken.

    Ties go to the setting that stands first in the sweep, the paper's own before all.
    """
    cell = swept[swept["cell"] == GREEDY.name]
    found = {}
    for method in METHODS:
        mine = cell[cell["method"] == method]
        found[method] = _setting(str(mine.iloc[int(mine["accuracy"].to_numpy().argmax())]["setting"]))
    return found


def _setting(text: str) -> Setting:
    read = json.loads(text)
    other = tuple((key, value) for key, value in read["other"])
    return Setting(read["method"], tuple(read["layers"]), read["iqr_factor"], other)


def rates(swept: pd.DataFrame, setting: Setting) -> dict[int, float]:
    """By layer, the share of tokens that a setting acts on, where the verdict is taken."""
    row = swept[(swept["cell"] == GREEDY.name) & (swept["name"] == setting.name)].iloc[0]
    return {int(layer): rate for layer, rate in json.loads(row["rates"]).items()}


_Job = Callable[[Path, Plan], pd.DataFrame]


@dataclass
class _Work:
    """Jobs on worker processes, each result a file: what is there is not done again."""

    run_path: Path
    parts: Path
    plan: Plan
    pool: ProcessPoolExecutor
    progress: bool
    _running: dict[str, Future[pd.DataFrame]] = field(default_factory=dict)

    def start(self, jobs: dict[str, _Job]) -> None:
        """Begin what is missing and not yet begun."""
        for name, job in jobs.items():
            if name not in self._running and not self._path(name).exists():
                self._running[name] = self.pool.submit(job, self.run_path, self.plan)

    def do(self, label: str, jobs: dict[str, _Job]) -> pd.DataFrame:
        """The results of these jobs, one table."""
        self.start(jobs)
        waiting = {self._running[name]: name for name in jobs if not self._path(name).exists()}
        with tqdm(
            total=len(jobs),
            initial=len(jobs) - len(waiting),
            desc=label,
            unit="part",
            disable=not self.progress,
        ) as bar:
            for done in as_completed(waiting):
                with atomic_write(self._path(waiting[done])) as unfinished:
                    done.result().to_parquet(unfinished, index=False)
                bar.update()
        return pd.concat([pd.read_parquet(self._path(name)) for name in jobs], ignore_index=True)

    def _path(self, name: str) -> Path:
        return self.parts / f"{name}.parquet"


def summary(swept: pd.DataFrame) -> pd.DataFrame:
    """A row per regime and setting: accuracy beside the plain model's on the same problems, how often it acted, cost.

    gained, lost: problems that only the method, only the plain model gets right. trigger_rate: mean over its layers of
    the share of tokens that it acts on. extra: extra layer passes, as a share of those of plain generation.
    """
    rows = []
    for cell, tables in swept.groupby("cell", sort=False):
        before = tables[tables["name"] == "plain"].set_index("problem_id")["correct"].astype(bool)
        for name, table in tables[tables["name"] != "plain"].groupby("name", sort=False):
            after = table.set_index("problem_id")["correct"].astype(bool).reindex(before.index)
            first = table.iloc[0]
            rates = json.loads(first["rates"])
            rows.append(
                {
                    "cell": cell,
                    "method": first["method"],
                    "name": name,
                    "setting": first["setting"],
                    "n": len(table),
                    "accuracy": after.mean(),
                    "plain": before.mean(),
                    "gained": int((after & ~before).sum()),
                    "lost": int((~after & before).sum()),
                    "rates": first["rates"],
                    "trigger_rate": sum(rates.values()) / len(rates),
                    "extra": first["extra"],
                }
            )
    return pd.DataFrame(rows)


def _file(*names: str) -> str:
    """A file name for a part; what is left out of a long name stands in its hash."""
    text = " ".join(names)
    plain_text = "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
    return f"{plain_text[:60]}-{config_hash({'part': text})[:8]}"
