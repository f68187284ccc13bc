"""Results of the vLLM engine's workers, put together; without vLLM."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.engines.vllm.core.reports import merged
from normprobe.engines.vllm.worker.slots import Slots
from normprobe.policies.lrs import lrs_scores
from normprobe.policies.rows import Rows
from normprobe.policies.spec import build

D, TAU = 4, {"1": 1.5, "4": 2.5, "6": 0.5}
PROBE = json.dumps({"policy": "probe", "tau": TAU, "max_tokens": 5})


def served(states: dict[str, torch.Tensor], layers: list[int]) -> Slots:
    """A worker that holds these layers and has seen these states [layer, token, d], by request; layers of TAU."""
    slots = Slots(lambda text: build(json.loads(text), None), 4, D, torch.device("cpu"))
    slots.take(dict.fromkeys(states, PROBE))
    running = slots.running[PROBE]
    for request, seen in states.items():
        slot = torch.tensor([slots.active[request].slot])
        for step in range(seen.shape[1]):
            for row, layer in enumerate(map(int, TAU)):
                if layer in layers:
                    running.apply(
                        Rows(seen[row, step : step + 1], slot, torch.tensor([step])), layer, lambda *_: None
                    )
            running.finish()
    return slots


@pytest.mark.parametrize(
    "ranks", [[[0, 1, 2, 3, 4, 5, 6]], [[0, 1, 2], [3, 4, 5, 6]], [[6, 5, 4], [3], [0, 1, 2]], [range(7)] * 2]
)
@settings(max_examples=15)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_ranks_add_up_to_one_worker(ranks: list[Any], lengths: list[int], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    states = {str(i): torch.randn(3, n, D, generator=draw) for i, n in enumerate(lengths)}
    names = [*states, "unknown"]
    found = merged([served(states, list(held)).results(names, held) for held in ranks])
    assert set(found) == set(states)
    for request, seen in states.items():
        norm, n = seen.norm(dim=-1), seen.shape[1]
        one = found[request]
        assert one["n_tokens"] == n
        assert list(one["layers"]) == ["1", "4", "6"]
        wanted = lrs_scores(norm, torch.tensor(list(TAU.values())))
        assert one["scores"] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
        for row, layer in enumerate(TAU):
            assert one["layers"][layer]["total"] == pytest.approx(float(norm[row].sum()), rel=1e-5)
            assert one["layers"][layer]["norm"] == pytest.approx(norm[row, :5].tolist(), rel=1e-5)


def test_a_layer_that_a_worker_lacks_is_absent_and_not_zero() -> None:
    slots = served({"a": torch.ones(3, 2, D)}, [0, 1, 2, 3])
    assert list(slots.results(["a"], range(4))["a"]["layers"]) == ["1"]
