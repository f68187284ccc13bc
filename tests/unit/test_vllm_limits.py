"""What a policy may ask of a vLLM engine that requests share; without vLLM."""

import json
import math
from itertools import product
from typing import Any

import pytest
import torch
from profile_fixture import profile

from normprobe.engines.vllm.configuration import canonical, policy_of
from normprobe.engines.vllm.limits import Limits
from normprobe.errors import NormprobeError
from normprobe.policies.rows import Rows
from normprobe.policies.spec import build

TAU = {"1": 2.0}
PROFILE = profile()
SETTINGS = {
    "alrr": ["blow_up", "max_passes", "growth", "damping"],
    "erss": "trigger streak probability cooldown min_cosine beta bank_size direction seed".split(),
    "suppress": ["scale"],
    "clamp": ["fraction"],
    "probe": ["max_tokens"],
}
EVERYWHERE = ["policy", "layers", "tau", "k", "prior_tokens", "threshold"]
NUMBERS = [math.nan, math.inf, -math.inf, -1, 0, 1, 0.5, 1e308, 1e-308, 10**30, -(10**30), 10**6, 2**63]
VALUES = [*NUMBERS, "", "x", None, True, [], {}, [[1]], ["1"], [1, 1, 2], *([number] for number in NUMBERS)]
VALUES += [{"1": number} for number in NUMBERS] + [{"x": 1}, {"1e0": 1}, {"-1": 2.0}, {"1": "2"}, {"1": True}]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"policy": "probe", "max_tokens": 65}, "max_tokens of at most 64"),
        ({"policy": "erss", "bank_size": 10**8}, "bank_size"),
        ({"policy": "erss", "cooldown": 10**30}, "cooldown"),
        ({"policy": "erss", "streak": 65}, "streak"),
        ([{"policy": "probe"}, {"policy": "alrr", "max_passes": 10**12}], "max_passes"),
    ],
)
def test_sizes_have_limits(spec: Any, named: str) -> None:
    parts = spec if isinstance(spec, list) else [spec]
    with pytest.raises(NormprobeError, match=named):
        Limits(64, lockstep=False).check(build([part | {"tau": TAU} for part in parts], None))


def test_experts_that_wait_for_other_ranks_get_no_extra_pass() -> None:
    probe, alrr = ({"policy": name, "tau": TAU} for name in ("probe", "alrr"))
    Limits(64, lockstep=True).check(build(probe, None))
    Limits(64, lockstep=False).check(build(alrr, None))
    with pytest.raises(NormprobeError, match="mixture of experts"):
        Limits(64, lockstep=True).check(build([probe, alrr], None))


def longer(active: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """An extra pass."""
    return 1.5 * states


@pytest.mark.parametrize("name", SETTINGS)
def test_whatever_a_client_sends_is_refused_or_runs(name: str) -> None:
    """An exception in a worker would end the engine for all."""
    ran = 0
    for key, value, tau in product([*SETTINGS[name], *EVERYWHERE], VALUES, [{}, {"tau": TAU}]):
        text = json.dumps({"policy": name, **tau, key: value})
        try:
            policy = policy_of(canonical(text), PROFILE, 3)
            Limits(64, lockstep=False).check(policy)
        except NormprobeError:
            continue
        ran += 1
        acting = policy.start(4, 8, torch.device("cpu"))
        acting.reset([0, 1], ["a", "b"])
        for step in range(3):
            rows = Rows(torch.full((2, 8), 20.0 + step), torch.tensor([0, 1]), torch.full((2,), step))
            for layer in policy.layers:
                assert acting.apply(rows, layer, longer).hidden.isfinite().all(), text
            acting.finish()
    assert ran > 20
