"""The parts of an evaluation: each opens the run's model in a process of its own and answers one set of problems."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from normprobe.engines.hf import Events
from normprobe.errors import NormprobeError
from normprobe.evaluation.answering import answer
from normprobe.evaluation.cells import GREEDY, Cell
from normprobe.evaluation.method_arms import WARMER, Entropies, Setting, baselines, plain
from normprobe.evaluation.samples import draw_sample, keyed_draws
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import OpenModel
from normprobe.models.opening import open_model
from normprobe.policies.rows import Policy
from normprobe.runs import Run
from normprobe.settings import Settings
from normprobe.testbed.scoring import correct

MAX_NEW_TOKENS = 220


@dataclass(frozen=True)
class Plan:
    """How large an evaluation is: problems of the sweep per regime, held-out problems, samples to select among."""

    tune: int = 128
    test: int = 2048
    samples: int = 8
    seed: int = 0


def _answer(
    opened: OpenModel, policy: Policy, cell: Cell, problems: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, Events]:
    draws = None
    if cell.temperature > 0:
        draws = keyed_draws(problems["problem_id"].tolist(), 0, seed, MAX_NEW_TOKENS)
    return answer(
        opened,
        policy,
        problems,
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=cell.temperature,
        draws=draws,
        scorer=correct,
    )


@dataclass(frozen=True)
class Sweep:
    """One setting (None: the plain model) on the tuning problems of one regime."""

    cell: Cell
    setting: Setting | None

    def __call__(self, run_path: Path, plan: Plan) -> pd.DataFrame:
        opened, profile = _open(run_path)
        problems = self.cell.problems(plan.tune, "tune")
        policy = plain(profile) if self.setting is None else self.setting.policy(profile)
        table, events = _answer(opened, policy, self.cell, problems, plan.seed)
        n_tokens = int(table["n_tokens"].sum())
        rates = {layer: float((events.layer == layer).sum()) / n_tokens for layer in policy.layers}
        return table.assign(
            cell=self.cell.name,
            method="" if self.setting is None else self.setting.method,
            name="plain" if self.setting is None else self.setting.name,
            setting="" if self.setting is None else json.dumps(asdict(self.setting)),
            rates=json.dumps(rates),
            extra=_extra(table, profile),
        )


@dataclass(frozen=True)
class PlainArms:
    """The held-out problems without a method: greedy, and with sampling alone changed."""

    def __call__(self, run_path: Path, plan: Plan) -> pd.DataFrame:
        opened, profile = _open(run_path)
        problems = GREEDY.problems(plan.test, "test")
        frames = []
        for arm, cell in (("plain", GREEDY), (WARMER, replace(GREEDY, temperature=0.6))):
            table, _ = _answer(opened, plain(profile), cell, problems, plan.seed)
            frames.append(table.assign(arm=arm, name=arm, extra=0.0))
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class MethodArms:
    """A method on the held-out problems: at the paper's settings, or (given rates) tuned, with its baselines."""

    setting: Setting
    rates: dict[int, float] | None = None

    def __call__(self, run_path: Path, plan: Plan) -> pd.DataFrame:
        opened, profile = _open(run_path)
        problems = GREEDY.problems(plan.test, "test")
        if self.rates is None:
            policies: dict[str, Policy] = {f"{self.setting.name} (paper)": self.setting.policy(profile)}
        else:
            entropies = Entropies(self.setting.layers[0])
            _answer(opened, entropies, GREEDY, GREEDY.problems(plan.tune, "tune"), plan.seed)
            uncertain = entropies.above(sum(self.rates.values()) / len(self.rates))
            policies = {self.setting.method: self.setting.policy(profile)}
            policies |= baselines(self.setting, profile, self.rates, uncertain, plan.seed)
        frames = []
        for arm, policy in policies.items():
            table, _ = _answer(opened, policy, GREEDY, problems, plan.seed)
            name = self.setting.name if arm == self.setting.method else arm
            frames.append(table.assign(arm=arm, name=name, extra=_extra(table, profile)))
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Samples:
    """One sampled response to each held-out problem, at temperature 1, with what the selectors need to know."""

    number: int

    def __call__(self, run_path: Path, plan: Plan) -> pd.DataFrame:
        opened, profile = _open(run_path)
        return draw_sample(
            opened,
            GREEDY.problems(plan.test, "test"),
            profile,
            self.number,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=1.0,
            seed=plan.seed,
            scorer=correct,
        )


def _extra(table: pd.DataFrame, profile: LayerProfile) -> float:
    """Extra layer passes as a share of those of plain generation."""
    return float(table["n_passes"].sum() / (table["n_tokens"].sum() * len(profile.tau)))


def _open(run_path: Path) -> tuple[OpenModel, LayerProfile]:
    """The run's model and profile, in this process, on one thread."""
    torch.set_num_threads(1)  # the processes are the parallelism
    resolved = Run.load(run_path).manifest()["arguments"]["resolved"]
    try:
        given = Settings.of(resolved)
    except (TypeError, KeyError) as error:
        raise NormprobeError(
            f"expected a run of `normprobe verify` in {run_path}, got another; evaluate a finished verification"
        ) from error
    opened = open_model(
        given.model,
        revision=given.revision,
        dtype=given.dtype,
        device=given.device,
        offline=given.offline,
        trust_remote_code=given.trust_remote_code,
    )
    profile = LayerProfile.load(run_path / "layer_profile.json").for_model(opened.identity.to_dict())
    return opened, profile
