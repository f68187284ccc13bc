"""One model in two processes, tensor-parallel: the tokens and results of one process.

vLLM runs no pipelines on a CPU; merging their results is tested in tests/unit/test_vllm_results.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from normprobe.testbed import bundled

POLICY = [
    {"policy": "alrr", "tau": {"7": 10.0, "9": 13.0}, "growth": -1.0, "blow_up": 9.0},
    {"policy": "probe", "tau": "profile", "layers": [3, 9, 10]},
]


@pytest.fixture
def halved(start: Callable[..., Engine], profile: Path) -> Engine:
    return start(
        bundled.path("tiny-thinker"),
        additional_config={"normprobe": str(profile)},
        tensor_parallel_size=2,
        distributed_executor_backend="mp",
    )


def test_two_ranks_say_and_report_what_one_does(
    engine: Engine, halved: Engine, prompts: list[list[int]]
) -> None:
    told: list[dict[str, Any]] = []
    for one in (engine, halved):
        for i, prompt in enumerate(prompts):
            one.add(str(i), Asked(prompt, POLICY))
        told.append(one.run())
    whole, halves = told
    for name, output in whole.items():
        assert halves[name].outputs[0].token_ids == output.outputs[0].token_ids
        wanted, found = (one[name].kv_transfer_params["normprobe"] for one in (whole, halves))
        assert found["n_tokens"] == wanted["n_tokens"]
        assert found["scores"] == pytest.approx(wanted["scores"], rel=1e-4, abs=1e-3)
        assert list(found["layers"]) == ["3", "9", "10"]
    assert any(
        list(output.outputs[0].token_ids) != tokens
        for output, tokens in zip(
            whole.values(),
            engine.serve({str(i): Asked(prompt) for i, prompt in enumerate(prompts)}).values(),
            strict=True,
        )
    )
