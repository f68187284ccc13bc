"""Responses to many prompts under a policy: greedy or sampled, the same whatever the batches are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from normprobe.engines.hf.events import Events, Recorder
from normprobe.engines.hf.intervention import Intervention, attached
from normprobe.errors import NormprobeError
from normprobe.models.open import OpenModel
from normprobe.policies.rows import Policy, RunningPolicy
from normprobe.tracing.decode import decode


@dataclass(frozen=True)
class Generated:
    """tokens: per prompt, up to and with the end. events: what the policy did; slots count the prompts."""

    tokens: list[list[int]]
    events: Events


@torch.inference_mode()
def generate(
    opened: OpenModel,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    names: Sequence[str] | None = None,
    temperature: float = 0.0,
    draws: Float[np.ndarray, "prompt step"] | None = None,
    batch_size: int = 128,
    on_batch: Callable[[RunningPolicy, list[int]], None] | None = None,
    quiet: bool = False,
    progress: str | None = None,
) -> Generated:
    """The tokens after each prompt (see `decode`) under a policy.

    Batches hold prompts of like length, in an order that depends on nothing else. names: key a policy's random draws,
    by default the number of the prompt. draws: as `decode` has them. on_batch: told after each batch the policy at
    work and the prompts of its slots. progress: the label of a progress bar.

    Raises NormprobeError for a layer that the model lacks, or, before any token, a prompt with no room for its
    response. Warns as `attached` does, unless `quiet`.
    """
    names = [str(i) for i in range(len(prompts))] if names is None else names
    _fits(opened, prompts, max_new_tokens)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=opened.device)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    tokens: list[list[int]] = [[] for _ in prompts]
    intervention = Intervention(policy, opened.identity.d_model)
    recorders: list[tuple[Recorder, list[int]]] = []
    with (
        attached(opened.blocks, intervention, quiet=quiet),
        tqdm(total=len(prompts), desc=progress, unit="problem", disable=progress is None) as bar,
    ):
        for start in range(0, len(prompts), batch_size):
            members = order[start : start + batch_size]
            batch = torch.tensor(members, device=opened.device)
            intervention.recorder = Recorder(policy.layers)
            recorders.append((intervention.recorder, members))
            intervention.begin([names[i] for i in members], opened.device)

            def place(
                present: torch.Tensor,
                position: torch.Tensor,
                entropy: torch.Tensor,
                batch: torch.Tensor = batch,
            ) -> None:
                step = position[:, -1] - lengths[batch[present]] + 1
                intervention.place(present, torch.where(position[:, -1] >= 0, step, -1), entropy)

            written = decode(
                opened,
                [prompts[i] for i in members],
                max_new_tokens,
                temperature=temperature,
                draws=None if draws is None else draws[members],
                on_pass=place,
            )
            intervention.finish()
            for slot, response in zip(members, written, strict=True):
                tokens[slot] = response
            if on_batch is not None and intervention.running is not None:
                on_batch(intervention.running, members)
            bar.update(len(members))
    return Generated(tokens, Events.joined([(recorder.events(), members) for recorder, members in recorders]))


def _fits(opened: OpenModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    room = getattr(opened.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
    if room is not None and longest > room:
        raise NormprobeError(
            f"expected prompts and responses within the model's {room} positions, got {longest}; "
            "shorten the prompts or lower max_new_tokens"
        )
