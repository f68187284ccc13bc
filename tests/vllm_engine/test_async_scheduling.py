"""Asynchronous scheduling, which a GPU has by default and vLLM switches off on a CPU: here it is forced on."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from vllm.platforms.cpu import CpuPlatform

from normprobe.testbed import bundled

PROBE = {"policy": "probe", "tau": "profile", "layers": [4, 10]}


class Instant:
    """Events and streams of a device on which everything has already happened."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def wait_stream(self, *_: Any) -> None: ...


@pytest.fixture
def overlapping(start: Callable[..., Engine], profile: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    settle = CpuPlatform.check_and_update_config

    def forced(config: Any) -> None:
        settle(config)
        config.scheduler_config.async_scheduling = True

    monkeypatch.setattr(CpuPlatform, "check_and_update_config", staticmethod(forced))
    for owner, name in ((torch, "Event"), (torch.cuda, "Stream"), (torch.cuda, "Event")):
        monkeypatch.setattr(owner, name, Instant)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Instant())
    return start(bundled.path("tiny-thinker"), additional_config={"normprobe": str(profile)})


def test_results_and_tokens_are_those_of_synchronous_scheduling(
    engine: Engine, overlapping: Engine, prompts: list[list[int]]
) -> None:
    told = []
    for one in (engine, overlapping):
        for i, prompt in enumerate(prompts):
            one.add(str(i), Asked(prompt, [{"policy": "alrr", "k": 0.0, "growth": -1.0}, PROBE]))
        done = one.run()
        told.append(
            {
                name: (list(output.outputs[0].token_ids), output.kv_transfer_params["normprobe"])
                for name, output in done.items()
            }
        )
    assert overlapping.core.step_fn.__name__ == "step_with_batch_queue"
    for name, (tokens, seen) in told[1].items():
        assert seen["n_tokens"] == len(tokens)  # not the pass too many after the end
        assert tokens == told[0][name][0]
        for layer, values in seen["layers"].items():
            assert values["total"] == pytest.approx(told[0][name][1]["layers"][layer]["total"], rel=1e-5)
