"""The jobs of an evaluation of methods: each opens the model in a worker process and answers one set of problems."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from normprobe.config import Study
from normprobe.engines.base import Draws, Engine
from normprobe.engines.hf import HfEngine
from normprobe.experiments.answers import MODE, answer
from normprobe.experiments.drawn_entropies import drawn_entropies
from normprobe.experiments.method_settings import Setting
from normprobe.experiments.samples import draw_sample, sample_key
from normprobe.layer_profile import LayerProfile
from normprobe.models.model import OpenModel
from normprobe.models.open import open_for
from normprobe.models.sites import record_sites
from normprobe.policies.combined import Combined
from normprobe.policies.controls.unchanged import Plain
from normprobe.policies.policy import Policy
from normprobe.problems.source import Regime
from normprobe.runs.atomic import read_table

WARMER = "plain, T = 0.6"
"""Plain generation with nothing changed but sampling."""
VECTOR_PROBLEMS = 64
"""Problems that CAA's vectors are made of, of the split `select`, which no verdict is measured on."""

_open = lru_cache(maxsize=1)(open_for)  # a worker does many jobs


@dataclass(frozen=True)
class MethodInputs:
    """What an evaluation reads: the study, the model's layer profile, and the run's problems and responses.parquet.

    held: an engine that is open already in this process; by default Transformers, opened in each process.
    """

    study: Study
    profile: LayerProfile
    problems: Path
    responses: Path
    held: Engine | None = None

    @cached_property
    def regimes(self) -> Sequence[Regime]:
        """The regimes of the run's problem source; the verdict is taken in the first.

        Raises NormprobeError if no problem has a gold answer.
        """
        return self.study.source.regimes(read_table(self.problems))

    @property
    def model(self) -> OpenModel:
        """The model, opened once in a process. Raises NormprobeError if the profile is another model's."""
        model = _open(self.study.model, self.study.thinking)
        self.profile.for_model(model.identity.to_dict())
        return model

    @property
    def engine(self) -> Engine:
        """What writes the responses."""
        return HfEngine(self.model) if self.held is None else self.held

    def test_problems(self, n: int) -> pd.DataFrame:
        """The first n held-out problems of the regime in which the verdict is taken."""
        return self.regimes[0].problems(n, "test")

    def limit(self, regime: Regime) -> int:
        """Tokens that a response may have."""
        return regime.max_new_tokens or self.study.max_new_tokens

    def policy(self, *settings: Setting) -> Policy:
        """The policy of these settings together; without any, one that never acts."""
        policies = tuple(
            setting.policy(
                self.profile,
                lambda layers: thinking_vectors(self.model, read_table(self.responses), layers),
            )
            for setting in settings
        )
        match policies:
            case ():
                return Plain(tuple(self.profile.chosen_layers))
            case (policy,):
                return policy
            case _:
                return Combined(policies)

    def answer(self, policy: Policy, regime: Regime, problems: pd.DataFrame) -> pd.DataFrame:
        """As `answers.answer`, with what the policy did and cost on all these problems together.

        rates: by layer, as JSON, the share of tokens acted on. extra_passes, extra_flops: extra layer passes, and their
        multiplications, as shares of those of the generated tokens (attention's own left out). seconds: of the CPU.
        """
        begun = time.process_time()
        table, events = answer(
            self.engine,
            policy,
            problems,
            max_new_tokens=self.limit(regime),
            temperature=regime.temperature,
            draws=self._draws(regime),
            scorer=self.study.source.score,
        )
        seconds = time.process_time() - begun
        blocks = [sum(p.numel() for p in block.parameters()) for block in self.model.blocks]
        head = sum(p.numel() for p in self.model.model.lm_head.parameters())
        n_tokens = int(table["n_tokens"].sum())
        rates = {layer: float((events.layer == layer).sum()) / n_tokens for layer in policy.acts_at}
        passes = float(table["n_passes"].sum()) / n_tokens
        return table.assign(
            rates=json.dumps(rates),
            extra_passes=passes / len(blocks),
            extra_flops=passes * sum(blocks) / len(blocks) / (sum(blocks) + head),
            seconds=seconds,
        )

    def entropies(self, regime: Regime, problems: pd.DataFrame) -> Float[np.ndarray, " state"]:
        """The output entropies, nats, of all states in which the plain model answers these problems."""
        prompts = [self.engine.chat.prompt_ids(str(question), MODE) for question in problems["question"]]
        written = self.engine.generate(
            prompts,
            self.limit(regime),
            names=problems["problem_id"].tolist(),
            temperature=regime.temperature,
            draws=self._draws(regime),
        )
        return np.concatenate(drawn_entropies(self.model, prompts, written.tokens))

    def _draws(self, regime: Regime) -> Draws | None:
        return Draws(partial(sample_key, self.study.seed, 0)) if regime.temperature > 0 else None


def try_setting(
    regime: Regime, setting: Setting | None, split: Literal["tune", "test"], n: int, inputs: MethodInputs
) -> pd.DataFrame:
    """One setting (None: the plain model) on the first `n` problems of a split of a regime."""
    policy = inputs.policy() if setting is None else inputs.policy(setting)
    return inputs.answer(policy, regime, regime.problems(n, split)).assign(
        regime=regime.name,
        method="" if setting is None else setting.method,
        name="plain" if setting is None else setting.name,
        setting="" if setting is None else setting.to_json(),
    )


def plain_treatments(inputs: MethodInputs) -> pd.DataFrame:
    """The held-out problems without a method: greedy, and with sampling alone changed."""
    greedy, problems = inputs.regimes[0], inputs.test_problems(inputs.study.methods.test)
    frames = [
        inputs.answer(inputs.policy(), regime, problems).assign(treatment=treatment, name=treatment)
        for treatment, regime in (("plain", greedy), (WARMER, replace(greedy, temperature=0.6)))
    ]
    return pd.concat(frames, ignore_index=True)


def method_treatments(
    settings: tuple[Setting, ...], rates: dict[int, float] | None, inputs: MethodInputs
) -> pd.DataFrame:
    """Settings on the held-out problems: the paper's, or (given rates) those tuned, with their baselines."""
    regime, plan = inputs.regimes[0], inputs.study.methods
    problems = inputs.test_problems(plan.test)
    name = " + ".join(setting.name for setting in settings)
    treatment = " + ".join(setting.method for setting in settings)
    policy = inputs.policy(*settings)
    policies = {treatment if rates is not None else f"{name} (paper)": policy}
    if rates:

        def entropy_above(share: float) -> float:
            entropies = inputs.entropies(regime, regime.problems(plan.tune, "tune"))
            return float(np.quantile(entropies, 1 - share))

        found = policy.baselines(rates, inputs.study.seed, entropy_above, len(inputs.model.blocks))
        policies |= {f"{treatment}: {baseline}": other for baseline, other in found.items()}
    frames = [
        inputs.answer(applied, regime, problems).assign(
            treatment=key, name=name if applied is policy else key
        )
        for key, applied in policies.items()
    ]
    return pd.concat(frames, ignore_index=True)


def sample(number: int, settings: tuple[Setting, ...], inputs: MethodInputs) -> pd.DataFrame:
    """One sampled response to each held-out problem, with what the selectors need to know.

    settings: the methods it is written under, if any; then a part of the problems only (column `treatment`).
    """
    plan = inputs.study.methods
    table = draw_sample(
        inputs.engine,
        inputs.model,
        inputs.test_problems(plan.part if settings else plan.test),
        inputs.profile,
        number,
        max_new_tokens=inputs.limit(inputs.regimes[0]),
        seed=inputs.study.seed,
        policy=inputs.policy(*settings) if settings else None,
        scorer=inputs.study.source.score,
    )
    return table.assign(treatment=" + ".join(setting.method for setting in settings))


@torch.inference_mode()
def thinking_vectors(
    opened: OpenModel, responses: pd.DataFrame, layers: Sequence[int]
) -> dict[int, Float[torch.Tensor, " d"]]:
    """By layer, the mean state of the tokens of think responses minus that of no_think, of the same problems:
    contrastive activation addition (CAA, arXiv 2312.06681).

    The states are those that a policy sees: the ones that yield the response's tokens. float32, activation units.
    """
    chosen = responses[responses["split"] == "select"]
    chosen = chosen[chosen["problem_id"].isin(chosen["problem_id"].unique()[:VECTOR_PROBLEMS])]
    means = {mode: _mean(opened, chosen[chosen["mode"] == mode], layers) for mode in ("think", "no_think")}
    return {layer: means["think"][layer] - means["no_think"][layer] for layer in layers}


def _mean(
    opened: OpenModel, responses: pd.DataFrame, layers: Sequence[int]
) -> dict[int, Float[torch.Tensor, " d"]]:
    sums = dict.fromkeys(layers, torch.zeros((), device=opened.device))
    n = 0
    for ids, n_prompt in zip(responses["token_ids"], responses["n_prompt"], strict=True):
        with record_sites(opened) as sites:
            opened.model(input_ids=torch.tensor(ids, device=opened.device)[None], use_cache=False)
            for layer in layers:
                sums[layer] = sums[layer] + sites.states[layer][0, n_prompt - 1 : -1].float().sum(dim=0)
        n += len(ids) - n_prompt
    return {layer: total / n for layer, total in sums.items()}
