"""The Hugging Face engine: many prompts, greedy or sampled, the same responses whatever the batches are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from normprobe.engines.base import (
    Draws,
    Events,
    Finish,
    Generated,
    ProbeResult,
    batches_by_length,
    check_draws,
    check_room,
    probe_results,
    with_scores,
)
from normprobe.engines.hf.decode import OnPass, decode
from normprobe.engines.hf.intervention import Intervention, attached
from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.models.identity import ModelIdentity
from normprobe.models.model import OpenModel
from normprobe.policies.policy import Policy


@dataclass(frozen=True)
class HfEngine:
    """An open model that generates in this process (see `normprobe.engines.base.Engine`)."""

    opened: OpenModel

    @property
    def chat(self) -> Chat:
        return self.opened.chat

    @property
    def identity(self) -> ModelIdentity:
        return self.opened.identity

    @property
    def context(self) -> int | None:
        return self.opened.context

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        names: Sequence[str] | None = None,
        policy: Policy | Sequence[Policy | None] | None = None,
        temperature: float = 0.0,
        draws: Draws | None = None,
        stop: Sequence[str] = (),
        batch_size: int = 128,
        record: bool = False,
        quiet: bool = False,
        progress: str | None = None,
    ) -> Generated:
        """As `Engine.generate` describes it; requests under different policies never share a batch.

        Raises NormprobeError as described there.
        """
        names = [str(i) for i in range(len(prompts))] if names is None else list(names)
        check_draws(temperature, draws)
        check_room(self, dict(zip(names, prompts, strict=True)), max_new_tokens)
        tokens: list[list[int]] = [[] for _ in prompts]
        probes: list[ProbeResult | None] = [None] * len(prompts)
        events: list[tuple[Events, Sequence[int]]] = []
        with tqdm(total=len(prompts), desc=progress, unit="problem", disable=progress is None) as bar:
            for shared, group in _by_policy(policy, len(prompts)):
                under: Any = nullcontext()
                if shared is not None:
                    intervention = Intervention(shared, self.identity.d_model, record=record)
                    under = attached(self.opened.blocks, intervention, quiet=quiet)
                with under as intervention:
                    for batch in batches_by_length([prompts[i] for i in group], batch_size):
                        members = [group[i] for i in batch]
                        of_batch, named = [prompts[i] for i in members], [names[i] for i in members]
                        uniform = on_pass = None
                        if draws is not None and temperature > 0:
                            uniform = np.stack([draws(name, max_new_tokens) for name in named])
                        if intervention is not None:
                            on_pass = self._begin(intervention, of_batch, named)
                        written = decode(
                            self.opened,
                            of_batch,
                            max_new_tokens,
                            temperature,
                            draws=uniform,
                            stop=stop,
                            on_pass=on_pass,
                        )
                        for i, response in zip(members, written, strict=True):
                            tokens[i] = response
                        if intervention is not None:
                            intervention.finish()
                            if record:
                                events.append((intervention.events(), members))
                            summary = intervention.running.summary(range(len(members)))
                            if summary is not None:
                                results = map(with_scores, probe_results(summary))
                                for i, result in zip(members, results, strict=True):
                                    probes[i] = result
                        bar.update(len(members))
        ends = set(self.chat.eos_ids)
        finish: list[Finish] = [
            "stop" if response[-1] in ends or len(response) < max_new_tokens else "length"
            for response in tokens
        ]
        return Generated(tokens, finish, Events.joined(events) if record else None, probes)

    def _begin(
        self, intervention: Intervention, prompts: Sequence[Sequence[int]], names: Sequence[str]
    ) -> OnPass:
        """Begin a batch; returns what names the last token of each row of a pass to the policy."""
        intervention.begin(names, self.opened.device)
        if intervention.recorded is not None:
            intervention.recorded.clear()
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.opened.device)

        def place(present: torch.Tensor, position: torch.Tensor, entropy: torch.Tensor) -> None:
            last = position[:, -1]
            step = last - lengths[present] + 1
            intervention.place(present, torch.where(last >= 0, step, -1), entropy)

        return place


def _by_policy(
    policy: Policy | Sequence[Policy | None] | None, n: int
) -> Iterator[tuple[Policy | None, list[int]]]:
    """Each policy with the numbers of its prompts. Raises NormprobeError if there are not as many as prompts."""
    if policy is None or isinstance(policy, Policy):
        yield policy, list(range(n))
        return
    if len(policy) != n:
        raise NormprobeError(f"expected a policy for each of {n} prompts, got {len(policy)}; give one each")
    groups: dict[int, list[int]] = {}
    for i, one in enumerate(policy):
        groups.setdefault(id(one), []).append(i)
    for members in groups.values():
        yield policy[members[0]], members
