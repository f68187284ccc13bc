"""The jobs of an evaluation of methods: each opens the model in a worker process and answers one set of problems."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from normprobe.config import Study
from normprobe.engines.base import Events
from normprobe.engines.hf import HfEngine
from normprobe.experiments.answers import answer
from normprobe.experiments.method_settings import Setting, Vectors
from normprobe.experiments.samples import draw_sample, sample_draws
from normprobe.experiments.thinking_vectors import thinking_vectors
from normprobe.layer_profile import LayerProfile
from normprobe.models.model import OpenModel
from normprobe.models.open import open_for
from normprobe.policies.combined import Combined
from normprobe.policies.controls.entropy_log import EntropyLog
from normprobe.policies.controls.plain import Plain
from normprobe.policies.policy import Policy
from normprobe.problems import ProblemSource
from normprobe.problems.source import Regime
from normprobe.runs.atomic import read_table

WARMER = "plain, T = 0.6"
"""Plain generation with nothing changed but sampling."""


@dataclass(frozen=True)
class MethodInputs:
    """What an evaluation reads: the study, the model's layer profile, and the run's problems and responses.parquet."""

    study: Study
    profile: LayerProfile
    problems: Path
    responses: Path

    @cached_property
    def regimes(self) -> Sequence[Regime]:
        """The regimes of the run's problem source. Raises NormprobeError if no problem has a gold answer."""
        return self.study.source.regimes(read_table(self.problems))

    @property
    def main_regime(self) -> Regime:
        """The regime in which the verdict is taken."""
        return self.regimes[0]


_open = lru_cache(maxsize=1)(open_for)  # a worker does many jobs


@dataclass(frozen=True)
class Opened:
    """The model, its layer profile, CAA's vectors on demand, and how its answers are judged."""

    model: OpenModel
    profile: LayerProfile
    vectors: Vectors
    source: ProblemSource
    max_new_tokens: int

    @classmethod
    def of(cls, inputs: MethodInputs) -> Opened:
        """Open the model in this process. Raises NormprobeError if the profile is another model's."""
        model = _open(inputs.study.model)

        def vectors(layers: tuple[int, ...]) -> Mapping[int, torch.Tensor]:
            return thinking_vectors(model, read_table(inputs.responses), layers)

        profile = inputs.profile.for_model(model.identity.to_dict())
        return cls(model, profile, vectors, inputs.study.source, inputs.study.max_new_tokens)

    def policy(self, *settings: Setting) -> Policy:
        """The policy of these settings together; without any, one that never acts."""
        policies = tuple(setting.policy(self.profile, self.vectors) for setting in settings)
        match policies:
            case ():
                return Plain(tuple(self.profile.chosen_layers))
            case (policy,):
                return policy
            case _:
                return Combined(policies)

    def answer(
        self, policy: Policy, regime: Regime, problems: pd.DataFrame, seed: int
    ) -> tuple[pd.DataFrame, Events]:
        """As `answers.answer`, with what it cost: see `_costs`."""
        draws = None
        if regime.temperature > 0:
            draws = partial(sample_draws, seed, 0)
        begun = time.process_time()
        table, events = answer(
            HfEngine(self.model),
            policy,
            problems,
            max_new_tokens=regime.max_new_tokens or self.max_new_tokens,
            temperature=regime.temperature,
            draws=draws,
            scorer=self.source.score,
        )
        return table.assign(**self._costs(table, events, policy, time.process_time() - begun)), events

    def _costs(
        self, table: pd.DataFrame, events: Events, policy: Policy, seconds: float
    ) -> dict[str, float | str]:
        """What a policy did and cost on all these problems together, relative to plain generation.

        rates: by layer, as JSON, the share of tokens acted on. extra_passes, extra_flops: extra layer passes, and their
        multiplications, as shares of those of the generated tokens (attention's own left out). seconds: of the CPU.
        """
        blocks = [sum(p.numel() for p in block.parameters()) for block in self.model.blocks]
        head = sum(p.numel() for p in self.model.model.lm_head.parameters())
        n_tokens = int(table["n_tokens"].sum())
        rates = {layer: float((events.layer == layer).sum()) / n_tokens for layer in policy.layers}
        passes = float(table["n_passes"].sum()) / n_tokens
        return {
            "rates": json.dumps(rates),
            "extra_passes": passes / len(blocks),
            "extra_flops": passes * sum(blocks) / len(blocks) / (sum(blocks) + head),
            "seconds": seconds,
        }


@dataclass(frozen=True)
class Try:
    """One setting (None: the plain model) on the first `n` problems of a split (`tune` or `test`) of a regime."""

    regime: Regime
    setting: Setting | None
    split: Literal["tune", "test"]
    n: int

    def __call__(self, inputs: MethodInputs) -> pd.DataFrame:
        opened, study = Opened.of(inputs), inputs.study
        policy = opened.policy(*([] if self.setting is None else [self.setting]))
        table, _ = opened.answer(policy, self.regime, self.regime.problems(self.n, self.split), study.seed)
        return table.assign(
            regime=self.regime.name,
            method="" if self.setting is None else self.setting.method,
            name="plain" if self.setting is None else self.setting.name,
            setting="" if self.setting is None else self.setting.to_json(),
        )


@dataclass(frozen=True)
class PlainTreatments:
    """The held-out problems without a method: greedy, and with sampling alone changed."""

    def __call__(self, inputs: MethodInputs) -> pd.DataFrame:
        opened, study = Opened.of(inputs), inputs.study
        greedy = inputs.main_regime
        problems = greedy.problems(study.methods.test, "test")
        frames = []
        for treatment, regime in (("plain", greedy), (WARMER, replace(greedy, temperature=0.6))):
            table, _ = opened.answer(opened.policy(), regime, problems, study.seed)
            frames.append(table.assign(treatment=treatment, name=treatment))
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class MethodTreatments:
    """Settings on the held-out problems: the paper's, or (given rates) those tuned, with their baselines."""

    settings: tuple[Setting, ...]
    rates: dict[int, float] | None = None

    def __call__(self, inputs: MethodInputs) -> pd.DataFrame:
        opened, study = Opened.of(inputs), inputs.study
        regime = inputs.main_regime
        problems = regime.problems(study.methods.test, "test")
        name = " + ".join(setting.name for setting in self.settings)
        treatment = " + ".join(setting.method for setting in self.settings)
        policy = opened.policy(*self.settings)
        policies = {treatment if self.rates is not None else f"{name} (paper)": policy}
        if self.rates:

            def entropy_above(share: float) -> float:
                log = EntropyLog(policy.layers[0])
                opened.answer(log, regime, regime.problems(study.methods.tune, "tune"), study.seed)
                return log.above(share)

            found = policy.baselines(self.rates, study.seed, entropy_above)
            policies |= {f"{treatment}: {baseline}": other for baseline, other in found.items()}
        frames = []
        for key, applied in policies.items():
            table, _ = opened.answer(applied, regime, problems, study.seed)
            frames.append(table.assign(treatment=key, name=name if applied is policy else key))
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Samples:
    """One sampled response to each held-out problem, at temperature 1, with what the selectors need to know.

    settings: the methods it is written under, if any; then a part of the problems only (column `treatment`).
    """

    number: int
    settings: tuple[Setting, ...] = ()

    def __call__(self, inputs: MethodInputs) -> pd.DataFrame:
        opened, study, regime = Opened.of(inputs), inputs.study, inputs.main_regime
        table = draw_sample(
            HfEngine(opened.model),
            opened.model,
            regime.problems(study.methods.part if self.settings else study.methods.test, "test"),
            opened.profile,
            self.number,
            max_new_tokens=regime.max_new_tokens or opened.max_new_tokens,
            temperature=1.0,
            seed=study.seed,
            policy=opened.policy(*self.settings) if self.settings else None,
            scorer=opened.source.score,
        )
        return table.assign(treatment=" + ".join(setting.method for setting in self.settings))
