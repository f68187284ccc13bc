"""The vLLM engine and the Hugging Face engine through the same protocol: the same responses and results."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving_fixture import Engine as Serving

pytest.importorskip("vllm.version")

from normprobe.engines.base import Engine, Generated
from normprobe.engines.hf import HfEngine
from normprobe.engines.vllm.engine import VllmEngine
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.controls.causal import Rotation
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
        (
            {"temperature": 0.7, "draws": lambda name, n: [0.5] * n},
            "cannot sample with draws keyed by request",
        ),
        ({"record": True}, "record of events"),
        ({"names": ["same", "same"]}, "names that differ"),
        ({"policy": build({"policy": "alrr", "tau": {"99": 1.0}}, None)}, r"layers 0…11, got \[99\]"),
        ({"policy": Rotation(FixedThreshold({9: 13.0}), seed=0)}, "Rotation"),
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
