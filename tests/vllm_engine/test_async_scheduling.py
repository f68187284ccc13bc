"""Asynchronous scheduling, which a GPU has by default and vLLM switches off on a CPU: here it is forced on."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from vllm.platforms.cpu import CpuPlatform

from normprobe.problems import bundled

PROBE = {"policy": "probe", "tau": "profile", "layers": [4, 10]}


class Instant:
    """Events and streams of a device on which everything has already happened."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def wait_stream(self, *_: Any) -> None: ...


@pytest.fixture
def overlapping(
    start: Callable[..., Engine], profile: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Engine]:
    settle = CpuPlatform.check_and_update_config

    def forced(config: Any) -> None:
        settle(config)
        config.scheduler_config.async_scheduling = True

    monkeypatch.setattr(CpuPlatform, "check_and_update_config", staticmethod(forced))
    for owner, name in ((torch, "Event"), (torch.cuda, "Stream"), (torch.cuda, "Event")):
        monkeypatch.setattr(owner, name, Instant)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Instant())
    return partial(start, bundled.find("tiny-thinker").folder, additional_config={"normprobe": str(profile)})


@pytest.mark.parametrize("embeds", [False, True], ids=["tokens", "embeddings"])
def test_results_and_tokens_are_those_of_synchronous_scheduling(
    engine: Engine, overlapping: Callable[..., Engine], prompts: list[list[int]], embeds: bool
) -> None:
    """embeds: the model is given embeddings in place of tokens, as multimodal models are."""
    results = []
    other = overlapping(enable_prompt_embeds=embeds)
    for one in (engine, other):
        for i, prompt in enumerate(prompts):
            one.add(str(i), Asked(prompt, [{"policy": "alrr", "k": 0.0, "growth": -1.0}, PROBE]))
        done = one.run()
        results.append(
            {
                name: (list(output.outputs[0].token_ids), output.kv_transfer_params["normprobe"])
                for name, output in done.items()
            }
        )
    assert other.core.step_fn.__name__ == "step_with_batch_queue"
    for name, (tokens, result) in results[1].items():
        assert result["n_tokens"] == len(tokens)  # not the pass too many after the end
        assert tokens == results[0][name][0]
        for layer, values in result["layers"].items():
            assert values["total"] == pytest.approx(results[0][name][1]["layers"][layer]["total"], rel=1e-5)


def test_a_request_that_ends_while_it_is_preempted_brings_its_results(
    overlapping: Callable[..., Engine], prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler makes room before it has read the last token of whom it preempts."""
    engine, ended = overlapping(num_gpu_blocks_override=12), 0
    update = type(engine.core.scheduler).update_from_output

    def updated(scheduler: Any, *args: Any) -> Any:
        nonlocal ended
        preempted = {name for name, one in scheduler.requests.items() if one.status.name == "PREEMPTED"}
        outputs = update(scheduler, *args)
        ended += len(preempted - scheduler.requests.keys())
        return outputs

    monkeypatch.setattr(type(engine.core.scheduler), "update_from_output", updated)
    for i in range(80):
        length = 60 if i % 2 else 1 + i % 7
        engine.add(str(i), Asked(prompts[i % len(prompts)], PROBE, length, {"ignore_eos": True}))
    done = engine.run()
    assert ended
    for output in done.values():
        assert output.kv_transfer_params["normprobe"]["n_tokens"] == len(output.outputs[0].token_ids)
