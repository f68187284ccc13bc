"""Policies in the real engine: chunked prompts, mixed batches, preemption; against Transformers and plain vLLM."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from normprobe.engines.hf import HfEngine
from normprobe.engines.vllm.worker.rerun import BlockRerun
from normprobe.layer_profile import LayerProfile
from normprobe.policies.spec import build

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel

EVERYWHERE = list(range(12))
NEVER = {str(layer): 1e9 for layer in EVERYWHERE}
OFTEN = {"7": 10.0, "9": 13.0, "10": 13.0}
POLICIES: dict[str, Any] = {
    "suppression": {"policy": "suppress", "tau": OFTEN, "scale": 0.5},
    "recursion": {"policy": "alrr", "tau": OFTEN, "growth": -1.0, "blow_up": 4.0},
    "deep recursion": {
        "policy": "alrr",
        "tau": OFTEN,
        "growth": -1.0,
        "blow_up": 9.0,
        "max_passes": 3,
        "damping": 0.5,
    },
    "adaptive recursion": {
        "policy": "alrr",
        "layers": [3, 5, 7, 9],
        "k": 0.0,
        "growth": -1.0,
        "blow_up": 9.0,
        "max_passes": 4,
    },
    "steering at peaks": {"policy": "erss", "k": 0.0, "cooldown": 2, "probability": 0.9, "min_cosine": 0.0},
    "steering after streaks": {
        "policy": "erss",
        "trigger": "low_streak",
        "streak": 2,
        "cooldown": 1,
        "k": 0.0,
        "probability": 0.7,
        "min_cosine": 0.0,
    },
    "together": [
        {"policy": "alrr", "tau": OFTEN, "growth": -1.0, "blow_up": 9.0, "max_passes": 2},
        {"policy": "probe", "layers": [9, 10]},
    ],
}


def asked(prompts: list[list[int]], policy: Any, **more: Any) -> dict[str, Asked]:
    return {str(i): Asked(prompt, policy, **more) for i, prompt in enumerate(prompts)}


@pytest.fixture(scope="module")
def plain(engine: Engine, prompts: list[list[int]]) -> dict[str, list[int]]:
    return engine.serve(asked(prompts, None))


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "alrr", "tau": NEVER},
        {"policy": "suppress", "tau": NEVER},
        {"policy": "erss", "tau": NEVER},
        {"policy": "probe", "layers": EVERYWHERE},
        "plain",
    ],
    ids=["alrr", "suppress", "erss", "probe", "plain"],
)
def test_a_policy_that_never_acts_leaves_every_token(
    engine: Engine, prompts: list[list[int]], plain: dict[str, list[int]], policy: Any
) -> None:
    assert engine.serve(asked(prompts, policy)) == plain


@pytest.mark.parametrize("name", POLICIES)
def test_tokens_are_those_of_the_hugging_face_engine(
    engine: Engine,
    opened: "OpenModel",
    prompts: list[list[int]],
    profile: Path,
    plain: dict[str, list[int]],
    name: str,
) -> None:
    policy = build(POLICIES[name], LayerProfile.load(profile))
    reference = HfEngine(opened).generate(prompts, 60, policy=policy, record=True)
    served = engine.serve(asked(prompts, POLICIES[name]))
    assert served == {str(i): tokens for i, tokens in enumerate(reference.tokens)}
    assert reference.events is not None
    assert len(reference.events.request) > 20
    assert served != plain  # else the comparison would show nothing


def test_each_request_of_a_mixed_batch_gets_what_it_gets_alone(
    engine: Engine, prompts: list[list[int]]
) -> None:
    settings = [*POLICIES.values(), None, "probe"]
    mixed = {str(i): Asked(prompt, settings[i % len(settings)]) for i, prompt in enumerate(prompts)}
    assert engine.serve(mixed) == engine.serve_alone(mixed)


@pytest.mark.parametrize("name", POLICIES)
def test_preempted_requests_get_what_they_get_undisturbed(
    engine: Engine, prompts: list[list[int]], name: str
) -> None:
    long = asked(prompts, POLICIES[name], max_tokens=90, more={"ignore_eos": True})
    done, preempted = engine.serve_watched(long)
    assert len(preempted) >= 3
    undisturbed: dict[str, list[int]] = {}
    for first in range(0, len(long), 4):  # as many as the cache has room for
        tokens, preempted = engine.serve_watched(dict(list(long.items())[first : first + 4]))
        assert not preempted
        undisturbed |= tokens
    assert done == undisturbed


def test_extra_passes_leave_every_bit_of_the_cache(
    engine: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = engine.worker.model_runner.kv_caches
    call, made = BlockRerun.__call__, 0

    def watched(self: BlockRerun, active: torch.Tensor, states: torch.Tensor) -> torch.Tensor | None:
        nonlocal made
        before = [cache.clone() for cache in caches]
        out = call(self, active, states)
        assert all(torch.equal(cache, kept) for cache, kept in zip(caches, before, strict=True))
        made += out is not None
        return out

    monkeypatch.setattr(BlockRerun, "__call__", watched)
    engine.serve(asked(prompts[:4], POLICIES["deep recursion"], max_tokens=10))
    assert made > 30


def test_an_extra_pass_that_writes_would_be_seen(
    engine: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: the ordinary pass of a block on new states does change the cache."""
    caches, changed = engine.worker.model_runner.kv_caches, []
    call = BlockRerun.__call__

    def writing(self: BlockRerun, active: torch.Tensor, states: torch.Tensor) -> torch.Tensor | None:
        before = [cache.clone() for cache in caches]
        if bool(active.any()) and len(states) == len(self.args[1]):
            self.block.forward(self.args[0], states.clone(), None)
            changed.append(
                not all(torch.equal(cache, kept) for cache, kept in zip(caches, before, strict=True))
            )
            for cache, kept in zip(caches, before, strict=True):
                cache.copy_(kept)
        return call(self, active, states)

    monkeypatch.setattr(BlockRerun, "__call__", writing)
    engine.serve(asked(prompts[:4], POLICIES["recursion"], max_tokens=10))
    assert changed
    assert all(changed)
