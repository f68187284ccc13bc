"""The vLLM engine and the Hugging Face engine through the same protocol: the same responses and results."""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from serving_fixture import Engine as Serving

pytest.importorskip("vllm.version")

from normprobe.engines.base import Draws, Engine, Generated, UntriggeredWarning
from normprobe.engines.hf import HfEngine
from normprobe.engines.vllm.engine import VllmEngine
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.controls.caa import CAA
from normprobe.policies.controls.causal import DirectionOnly, LowNormSuppression, Rotation
from normprobe.policies.controls.damped_loop import DampedLoop
from normprobe.policies.controls.gated_recursion import EntropyGate, GatedRecursion, RandomGate
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.policies.controls.unchanged import Plain
from normprobe.policies.policy import Policy
from normprobe.policies.spec import build
from normprobe.policies.threshold import FixedThreshold

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel

TAU = {"7": 10.0, "9": 13.0, "10": 13.0}
PROBE = {"policy": "probe", "layers": [9, 10], "max_tokens": 16}
SPECS: list[Any] = [
    None,
    "alrr",
    {"policy": "suppress", "tau": TAU, "scale": 0.5},
    [{"policy": "alrr", "tau": TAU, "growth": -1.0, "blow_up": 9.0}, PROBE],
    {"policy": "erss", "k": 0.0, "cooldown": 2, "probability": 0.9, "min_cosine": 0.0},
]


@pytest.fixture(scope="module")
def served(engine: Serving, opened: "OpenModel") -> VllmEngine:
    return VllmEngine(engine.llm, opened.chat, opened.identity)


@pytest.fixture(scope="module")
def policies(profile: Path) -> list[Policy | None]:
    """The policies of `SPECS`."""
    loaded = LayerProfile.load(profile)
    return [None if spec is None else build(spec, loaded) for spec in SPECS]


def generate(engine: Engine, prompts: list[list[int]], policies: list[Policy | None]) -> Generated:
    """Each prompt under another policy, under names that are no numbers."""
    assert isinstance(engine, Engine)
    names = [f"problem {i}" for i in range(len(prompts))]
    mixed = [policies[i % len(policies)] for i in range(len(prompts))]
    return engine.generate(prompts, 40, names=names, policy=mixed, quiet=True)


def test_both_engines_write_the_same_responses(
    served: VllmEngine, opened: "OpenModel", prompts: list[list[int]], policies: list[Policy | None]
) -> None:
    found, wanted = (generate(engine, prompts, policies) for engine in (served, HfEngine(opened)))
    assert found.tokens == wanted.tokens
    assert found.finish == wanted.finish
    assert len(set(found.finish)) == 2
    assert found.tokens != served.generate(prompts, 40).tokens
    for one, other in zip(found.probes, wanted.probes, strict=True):
        assert (one is None) is (other is None)
        if one is not None and other is not None:
            assert one["n_tokens"] == other["n_tokens"]
            assert one["scores"] == pytest.approx(other["scores"], rel=1e-5, abs=1e-4)
    assert sum(probe is not None for probe in found.probes) == 2


draws = Draws(lambda name: [zlib.crc32(name.encode())])


def same(
    served: VllmEngine, opened: "OpenModel", prompts: list[list[int]], n: int = 60, **more: Any
) -> Generated:
    """What both engines give: the same tokens, and events at the same places."""
    names = [f"problem {i}" for i in range(len(prompts))]
    given = {"names": names, "quiet": True, "record": True} | more
    found, wanted = (engine.generate(prompts, n, **given) for engine in (served, HfEngine(opened)))
    assert found.tokens == wanted.tokens
    assert found.finish == wanted.finish
    assert found.events is not None
    assert wanted.events is not None
    for name in ("request", "step", "layer", "passes"):
        assert torch.equal(getattr(found.events, name), getattr(wanted.events, name)), name
    torch.testing.assert_close(found.events.delta, wanted.events.delta, rtol=1e-4, atol=1e-3)
    return found


@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_samples_are_those_of_the_hugging_face_engine(
    served: VllmEngine, opened: "OpenModel", prompts: list[list[int]], temperature: float
) -> None:
    written = same(served, opened, prompts, temperature=temperature, draws=draws)
    assert written.tokens != served.generate(prompts, 60).tokens


def test_samples_do_not_depend_on_the_other_requests(served: VllmEngine, prompts: list[list[int]]) -> None:
    """More requests than the engine has at a time, long enough to be preempted."""
    names = [f"{i}/{copy}" for copy in range(4) for i in range(len(prompts))]
    many = served.generate(prompts * 4, 90, names=names, temperature=1.0, draws=draws).tokens
    for i in (0, 17, 47):
        alone = served.generate([(prompts * 4)[i]], 90, names=[names[i]], temperature=1.0, draws=draws)
        assert alone.tokens == [many[i]]
    assert len({tuple(tokens) for tokens in many}) > len(prompts)


def test_a_string_ends_what_follows_the_thought(
    served: VllmEngine, opened: "OpenModel", prompts: list[list[int]]
) -> None:
    """Digits come in every thought. An ended request brings its results, too."""
    plain = served.generate(prompts, 150).tokens
    probe = build(PROBE | {"tau": {"9": 13.0, "10": 13.0}}, None)
    stop = [str(digit) for digit in range(11)]
    ended = same(served, opened, prompts, 150, stop=stop, policy=probe)
    assert sum(len(one) < len(other) for one, other in zip(ended.tokens, plain, strict=True)) > 3
    for probed, tokens in zip(ended.probes, ended.tokens, strict=True):
        assert probed is not None
        assert probed["n_tokens"] == len(tokens)


class Elsewhere(Plain):
    """A policy that vLLM's workers could not make."""


GATE = {7: 0.2, 9: 0.3}
DOSES = Doses(
    torch.arange(12 * 30 * 2).remainder(5).float().reshape(12, 30, 2) * 2,
    torch.full((12,), 30),
    (7, 9),
    tuple(f"problem {i}" for i in range(12)),
)
CONTROLS: dict[str, Policy] = {
    "plain": Plain((9, 10)),
    "rotation": Rotation(FixedThreshold({9: 13.0}), seed=0),
    "direction only": DirectionOnly(FixedThreshold({9: 13.0}), {9: 8.0}),
    "low norms": LowNormSuppression({9: 12.0}, 0.5),
    "replayed": ReplayedSuppression(DOSES),
    "random tokens": GatedRecursion(RandomGate(GATE, 1), 2, 0.5),
    "uncertain tokens": GatedRecursion(EntropyGate((7, 9), 0.4)),
    "damped loop": DampedLoop.of(12, 1.5, 3),
    "fixed vector": CAA({9: torch.linspace(-1, 1, 128)}, 0.5),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_do_what_they_do_in_the_hugging_face_engine(
    served: VllmEngine, opened: "OpenModel", prompts: list[list[int]], name: str
) -> None:
    written = same(served, opened, prompts, 90, policy=CONTROLS[name])
    assert written.events is not None
    acted = len(written.events.request)
    assert acted == 0 if name == "plain" else acted > 20
    assert served.llm.llm_engine.vllm_config.additional_config["normprobe_kept"] == {}


def test_policies_leave_the_same_events(
    served: VllmEngine, opened: "OpenModel", prompts: list[list[int]], policies: list[Policy | None]
) -> None:
    mixed = [policies[i % len(policies)] for i in range(len(prompts))]
    written = same(served, opened, prompts, policy=mixed, temperature=1.0, draws=draws)
    assert written.events is not None
    assert len(written.events.request) > 50


def test_a_policy_that_never_acts_is_told(served: VllmEngine, prompts: list[list[int]]) -> None:
    never = build({"policy": "suppress", "tau": {"9": 1e9}}, None)
    with pytest.warns(UntriggeredWarning, match="changed nothing in 2 responses"):
        served.generate(prompts[:2], 5, policy=never)


def test_a_plain_request_is_plain_under_a_default_policy(
    served: VllmEngine,
    prompts: list[list[int]],
    policies: list[Policy | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = served.generate(prompts[:4], 20)
    config = served.llm.llm_engine.vllm_config
    default = '{"policy":"suppress","scale":0.1,"tau":{"9":5.0}}'
    given = config.additional_config["normprobe"] | {"policy": default}
    monkeypatch.setattr(config, "additional_config", {"normprobe": given})
    assert served.generate(prompts[:4], 20) == plain


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"temperature": 0.7}, "expected draws to sample with"),
        ({"names": ["same", "same"]}, "names that differ"),
        ({"policy": build({"policy": "alrr", "tau": {"99": 1.0}}, None)}, r"layers 0…11, got \[99\]"),
        ({"policy": Elsewhere((9,))}, "a policy of normprobe.policies whose .* got Elsewhere"),
    ],
)
def test_what_vllm_cannot_do_is_refused_by_name(
    served: VllmEngine, prompts: list[list[int]], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(NormprobeError, match=message):
        served.generate(prompts[:2], 5, **more)
    assert not served.llm.llm_engine.has_unfinished_requests()


def test_a_prompt_without_room_is_refused(served: VllmEngine) -> None:
    with pytest.raises(NormprobeError, match=r"256 tokens, got 250 \+ 20 for 0"):
        served.generate([[5] * 250], 20)
