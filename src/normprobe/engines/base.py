"""What an engine is: it runs a model and writes responses to many prompts, plain or under policies.

All else uses the `Engine` protocol and nothing more of an engine; each folder next to this file implements one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.models.identity import ModelIdentity
from normprobe.policies.lrs import FORMS, LAST_PART, LAST_THIRD, last_tokens, with_rates
from normprobe.policies.policy import Policy
from normprobe.policies.rows import ProbeSummary

ProbeResult = dict[str, Any]
"""What a probe measured of a request: {"n_tokens", "layers", "scores"}, see `probe_results` and `with_scores`."""
Finish = Literal["stop", "length"]
"""Why a response ends: an end token or a string of `stop`, or the limit."""
SUMS = ("total", "excess", "above", "last_excess", "last_third")
"""The sums of one layer that the scores `FORMS` add up over the layers."""


@dataclass(frozen=True)
class Draws:
    """Uniform numbers that requests are sampled with, a function of a request's name alone.

    key: (name of a request) → the whole numbers from 0 that seed its own.
    """

    key: Callable[[str], Sequence[int]]

    def __call__(self, name: str, n_steps: int) -> Float[np.ndarray, " step"]:
        return uniform_numbers(self.key(name), n_steps)


def uniform_numbers(key: Sequence[int], n_steps: int) -> Float[np.ndarray, " step"]:
    """Numbers in [0, 1); fewer steps give the first of them."""
    return np.random.default_rng(list(key)).random(n_steps)


class UntriggeredWarning(UserWarning):
    """A policy was asked about every state and acted on none."""


@dataclass(frozen=True)
class Events:
    """Where policies acted: one entry per request, step and layer, in that order whatever the batches were.

    request: the number of the prompt. step: as in `normprobe.policies.rows.Rows`.
    delta: ‖Δh‖ in activation units, float32; 0 where an extra pass was made and thrown away.
    passes: extra passes of the layer; 0 for policies that make none.
    """

    request: Int[torch.Tensor, " event"]
    step: Int[torch.Tensor, " event"]
    layer: Int[torch.Tensor, " event"]
    delta: Float[torch.Tensor, " event"]
    passes: Int[torch.Tensor, " event"]

    @classmethod
    def joined(cls, parts: Sequence[tuple[Events, Sequence[int]]]) -> Events:
        """The events of several batches, each given with the numbers that its requests have in the whole."""
        if not parts:
            none = torch.empty(0, dtype=torch.int64)
            return cls(none, none, none, torch.empty(0), none)
        request = torch.cat([torch.tensor(numbers)[events.request] for events, numbers in parts])
        order = request.argsort(stable=True)
        step, layer, delta, passes = (
            torch.cat([getattr(events, name) for events, _ in parts])[order]
            for name in ("step", "layer", "delta", "passes")
        )
        return cls(request[order], step, layer, delta, passes)


@dataclass(frozen=True)
class Generated:
    """What an engine wrote, by prompt.

    tokens: up to and with the end token. events: what the policies did, if that was recorded.
    probes: what a probe measured, None where there was none.
    """

    tokens: list[list[int]]
    finish: list[Finish]
    events: Events | None
    probes: list[ProbeResult | None]


@runtime_checkable
class Engine(Protocol):
    """A model that can generate.

    context: tokens that prompt and response may have together; None where the model sets no limit.
    """

    @property
    def chat(self) -> Chat: ...

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def context(self) -> int | None: ...

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
        """At most `max_new_tokens` tokens after each prompt: greedy at temperature 0, else sampled.

        names: of the requests, which key all random draws; by default "0", "1", …
        policy: one for all, one per prompt, or None for the plain model.
        draws: uniform numbers; a sampled token is the inverse of the cumulated softmax(logits / temperature) at its
            number, so that a response depends on its prompt and name, never on the other requests.
        stop: strings that end a response as soon as what follows its thought holds one; their tokens are kept.
        batch_size: prompts at a time, for engines that make batches. record: keep events.
        quiet: no warning (UntriggeredWarning) if a policy acted on nothing. progress: the label of a progress bar.

        Raises NormprobeError, before any token, for a prompt that leaves no room for its response, sampling without
        draws, a layer that the model lacks, or what the engine cannot do.
        """
        ...


def check_room(engine: Engine, prompts: Mapping[str, Sequence[int]], max_new_tokens: int) -> None:
    """Raises NormprobeError for a prompt, by name, that leaves no room for `max_new_tokens` in the model's context."""
    longest = max(prompts, key=lambda name: len(prompts[name]), default=None)
    if engine.context is None or longest is None:
        return
    if len(prompts[longest]) + max_new_tokens > engine.context:
        raise NormprobeError(
            f"expected prompt and response within the model's {engine.context} tokens, got "
            f"{len(prompts[longest])} + {max_new_tokens} for {longest}; lower max_new_tokens or leave the problem out"
        )


def check_draws(temperature: float, draws: Draws | None) -> None:
    """Raises NormprobeError for sampling without draws."""
    if temperature > 0 and draws is None:
        raise NormprobeError(
            f"expected draws to sample with at temperature {temperature}, got none; give a function of the name"
        )


def holds_stop(chat: Chat, prompt: Sequence[int], written: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the answer in the tokens written so far, what follows the thought, holds a string of `stop`."""
    answer = chat.answer_text([*prompt, *written], len(prompt))
    return any(end in answer for end in stop if end)


def batches_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """The numbers of the prompts in each batch, by length and then in order: a plan that depends on nothing else."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def probe_results(summary: ProbeSummary, here: Container[int] | None = None) -> list[dict[str, Any]]:
    """By request: {"n_tokens": int, "layers": {layer: {"total", "excess", "above", "largest", "last_excess",
    "last_third" and, with max_tokens > 0, "norm": [token]}}}.

    The first four are those of `ProbeSummary`; the next two are Σ max(0, norm − τ) and Σ norm over the last parts that
    LRS scores (`ProbeSummary.last`). Layers are text, as JSON has them. here: those to report, by default all.
    """
    columns = {str(layer): i for i, layer in enumerate(summary.layers) if here is None or layer in here}
    counts = summary.n_tokens.tolist()
    (_, last_excess), (last_third, _) = (
        summary.last(torch.tensor([last_tokens(n, share) for n in counts], dtype=torch.int64))
        for share in (LAST_PART, LAST_THIRD)
    )
    values = {name: getattr(summary, name) for name in ("total", "excess", "above", "largest")}
    values |= {"last_excess": last_excess, "last_third": last_third}
    n_kept = summary.norm.shape[2]
    results = []
    for row, n in enumerate(counts):
        layers: dict[str, dict[str, Any]] = {
            layer: {name: value[row, i].item() for name, value in values.items()}
            for layer, i in columns.items()
        }
        if n_kept:
            for layer, i in columns.items():
                layers[layer]["norm"] = summary.norm[row, i, : min(n, n_kept)].tolist()
        results.append({"n_tokens": n, "layers": layers})
    return results


def with_scores(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with the LRS scores over its layers in "scores", as `normprobe.policies.lrs.lrs_scores` names them."""
    layers = {layer: result["layers"][layer] for layer in sorted(result["layers"], key=int)}
    sums = {
        form: math.fsum(values[name] for values in layers.values())
        for form, name in zip(FORMS, SUMS, strict=True)
    }
    return {"n_tokens": result["n_tokens"], "layers": layers, "scores": with_rates(sums, result["n_tokens"])}
