"""LoRA: a request's adapter holds in the extra passes of its policy, and no other request's."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from vllm.lora.request import LoRARequest

from normprobe.engines.hf import HfEngine
from normprobe.layer_profile import LayerProfile
from normprobe.policies.spec import build
from normprobe.problems import bundled

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel

RANK, SCALE = 4, 2.0
POLICIES: list[Any] = [
    {"policy": "alrr", "layers": [3, 5, 7, 9], "k": 0.0, "growth": -1.0, "blow_up": 9.0, "max_passes": 2},
    {"policy": "suppress", "tau": {"7": 10.0, "9": 13.0}, "scale": 0.5},
]


@pytest.fixture(scope="module")
def adapters(opened: "OpenModel", tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two PEFT folders of random adapters on all linear layers, small enough that the answers stay words."""
    folders = []
    for seed in range(2):
        generator, tensors = torch.Generator().manual_seed(seed), {}
        for name, module in opened.model.named_modules():
            if isinstance(module, torch.nn.Linear) and "layers" in name:
                down = torch.randn(RANK, module.in_features, generator=generator) / module.in_features**0.5
                up = 0.05 * torch.randn(module.out_features, RANK, generator=generator)
                tensors |= {
                    f"base_model.model.{name}.lora_A.weight": down,
                    f"base_model.model.{name}.lora_B.weight": up,
                }
        folder = tmp_path_factory.mktemp(f"adapter_{seed}")
        save_file(tensors, folder / "adapter_model.safetensors")
        targets = sorted({name.split(".")[-3] for name in tensors})
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK * SCALE, "target_modules": targets}
        (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "none"}), encoding="utf-8")
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def with_lora(start: Callable[..., Engine], profile: Path, request: pytest.FixtureRequest) -> Engine:
    """request.param: whether compiled; then a recursion is the default policy."""
    configuration = {"profile": str(profile)} | ({"policy": POLICIES[0]} if request.param else {})
    return start(
        bundled.find("tiny-thinker").folder,
        additional_config={"normprobe": configuration},
        enforce_eager=not request.param,
        enable_lora=True,
        # One more than there are adapters: on a CPU vLLM gives a request without one the last slot's, if others in its
        # batch have some (index -1 in vllm/lora/ops/torch_ops); an empty slot adds nothing.
        max_loras=3,
        max_lora_rank=8,
    )


def adapted(opened: "OpenModel", folder: Path) -> "OpenModel":
    """tiny-thinker in Transformers with the adapters added to its weights."""
    from safetensors.torch import load_file

    from normprobe.models.open import open_model

    other, tensors = open_model("tiny-thinker", check=False), load_file(folder / "adapter_model.safetensors")
    with torch.no_grad():
        for name, module in other.model.named_modules():
            up, down = (tensors.get(f"base_model.model.{name}.lora_{which}.weight") for which in "BA")
            if up is not None and down is not None:
                module.weight += SCALE * up @ down  # pyright: ignore[reportArgumentType, reportOperatorIssue]
    return other


@pytest.mark.parametrize(
    ("with_lora", "policy"),
    [(False, POLICIES[0]), (False, POLICIES[1]), (True, POLICIES[0])],
    ids=["recursion", "suppression", "recursion, compiled"],
    indirect=["with_lora"],
)
def test_each_request_has_its_adapter_in_the_passes_of_its_policy(
    with_lora: Engine,
    opened: "OpenModel",
    adapters: list[Path],
    prompts: list[list[int]],
    profile: Path,
    policy: Any,
) -> None:
    models = [opened, *(adapted(opened, folder) for folder in adapters)]
    requests = [None, *(LoRARequest(f"adapter {i}", i + 1, str(folder)) for i, folder in enumerate(adapters))]
    built = build(policy, LayerProfile.load(profile))
    expected: dict[str, list[int]] = {}
    plain: dict[str, list[int]] = {}
    asked: dict[str, Asked] = {}
    for number, (model, request) in enumerate(zip(models, requests, strict=True)):
        mine = prompts[number::3]
        names = [f"{number} {i}" for i in range(len(mine))]
        expected |= zip(names, HfEngine(model).generate(mine, 60, policy=built).tokens, strict=True)
        plain |= zip(names, HfEngine(model).generate(mine, 60).tokens, strict=True)
        asked |= {
            name: Asked(prompt, policy, adapter=request) for name, prompt in zip(names, mine, strict=True)
        }
    assert with_lora.serve(asked) == expected
    without = {name: replace(one, policy="plain") for name, one in asked.items()}
    assert with_lora.serve(without) == plain
    # Else the comparisons would show nothing: the policy acts, and the adapters change what is written.
    assert expected != plain
    alone = {name: replace(one, adapter=None) for name, one in without.items()}
    assert with_lora.serve(alone) != plain
