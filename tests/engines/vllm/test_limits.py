"""What a policy may ask of a vLLM engine that requests share; without vLLM."""

import json
import math
from dataclasses import replace
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
LIMITS = Limits(64, lockstep=False, n_slots=256, state_bytes=2 * 4096)
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
        ([{"policy": "probe"}, {"policy": "alrr", "max_passes": 10**12}], "extra passes of a token"),
    ],
)
def test_sizes_have_limits(spec: Any, named: str) -> None:
    parts = spec if isinstance(spec, list) else [spec]
    with pytest.raises(NormprobeError, match=named):
        LIMITS.check(build([part | {"tau": TAU} for part in parts], None))


@pytest.mark.parametrize(
    ("spec", "layers", "fits"),
    [
        (["probe"], 36, True),
        ([{"policy": "probe", "max_tokens": 4096}], 7, True),
        ([{"policy": "probe", "max_tokens": 40_000}], 36, False),
        ([{"policy": "probe", "max_tokens": 16_384}] * 8, 9, False),
        (["erss"], 7, True),
        ([{"policy": "erss", "bank_size": 64}], 36, False),
    ],
)
def test_histories_fit_into_memory(spec: list[Any], layers: int, fits: bool) -> None:
    tau = {str(layer): 2.0 for layer in range(layers)}
    parts = [({"policy": part} if isinstance(part, str) else part) | {"tau": tau} for part in spec]
    limits = replace(LIMITS, length=40_960)
    limits.check(build(parts, None))
    if fits:
        limits.check_memory(build(parts, None))
    else:
        with pytest.raises(NormprobeError, match="histories take 1024 MiB at most in this engine, got"):
            limits.check_memory(build(parts, None))


def test_extra_passes_are_counted_over_all_layers() -> None:
    alrr = {"policy": "alrr", "max_passes": 100}
    LIMITS.check(build(alrr | {"tau": {"1": 2.0, "2": 2.0}}, None))
    with pytest.raises(NormprobeError, match=r"256 extra passes of a token .* got 300"):
        LIMITS.check(build(alrr | {"tau": {"1": 2.0, "2": 2.0, "3": 2.0}}, None))


def test_experts_that_wait_for_other_ranks_get_no_extra_pass() -> None:
    probe, alrr = ({"policy": name, "tau": TAU} for name in ("probe", "alrr"))
    replace(LIMITS, lockstep=True).check(build(probe, None))
    LIMITS.check(build(alrr, None))
    with pytest.raises(NormprobeError, match="mixture of experts"):
        replace(LIMITS, lockstep=True).check(build([probe, alrr], None))


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
            LIMITS.check(policy)
        except NormprobeError:
            continue
        ran += 1
        running = policy.start(4, 8, torch.device("cpu"))
        running.reset([0, 1], ["a", "b"])
        for step in range(3):
            rows = Rows(torch.full((2, 8), 20.0 + step), torch.tensor([0, 1]), torch.full((2,), step))
            for layer in policy.layers:
                assert running.apply(rows, layer, longer).hidden.isfinite().all(), text
            running.finish()
    assert ran > 20
