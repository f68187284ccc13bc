"""One model in two processes, tensor-parallel: the tokens and results of one process, the same thresholds in both.

vLLM runs no pipelines on a CPU; merging their results is tested in tests/engines/vllm/core/test_reports.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from normprobe.problems import bundled

POLICY = [
    {"policy": "alrr", "layers": [3, 5, 7], "k": 0.0, "growth": -1.0, "blow_up": 9.0, "max_passes": 8},
    {"policy": "probe", "tau": "profile", "layers": [3, 9, 10]},
]
STEPS = 20


@pytest.fixture(scope="module")
def halved(start: Callable[..., Engine], profile: Path) -> Engine:
    return start(
        bundled.find("tiny-thinker").folder,
        additional_config={"normprobe": str(profile)},
        tensor_parallel_size=2,
        distributed_executor_backend="mp",
    )


def thresholds(worker: Any) -> list[list[float]]:
    """Of the one recursion at work on this rank: τ by layer and slot."""
    (running,) = worker.normprobe.slots.running.values()
    ((_, recursing), _) = running.parts
    return recursing.threshold.taus.tolist()


def test_two_ranks_generate_and_report_what_one_does(
    engine: Engine, halved: Engine, prompts: list[list[int]]
) -> None:
    results: list[dict[str, Any]] = []
    for one in (engine, halved):
        for i, prompt in enumerate(prompts):
            one.add(str(i), Asked(prompt, POLICY))
        results.append(one.run())
    whole, halves = results
    for name, output in whole.items():
        assert halves[name].outputs[0].token_ids == output.outputs[0].token_ids
        wanted, found = (one[name].kv_transfer_params["normprobe"] for one in (whole, halves))
        assert found["n_tokens"] == wanted["n_tokens"]
        assert found["scores"] == pytest.approx(wanted["scores"], rel=1e-4, abs=1e-3)
        assert list(found["layers"]) == ["3", "9", "10"]
    plain = engine.serve({str(i): Asked(prompt) for i, prompt in enumerate(prompts)})
    assert any(list(output.outputs[0].token_ids) != plain[name] for name, output in whole.items())


def test_thresholds_and_statistics_are_the_same_to_the_bit_on_both_ranks(
    halved: Engine, prompts: list[list[int]]
) -> None:
    names = [halved.add(str(i), Asked(prompt, POLICY)) for i, prompt in enumerate(prompts)]
    untouched = None
    for _ in range(STEPS):
        halved.llm.llm_engine.step()
        one, other = halved.core.model_executor.collective_rpc(thresholds)
        assert one == other
        untouched = untouched or one
    assert one != untouched
    one, other = halved.core.model_executor.collective_rpc("normprobe_results", args=(names,))
    assert one == other
    assert all(result["n_tokens"] > 0 for result in one.values())
    halved.run()
