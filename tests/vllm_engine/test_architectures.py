"""The site and the extra pass in each family of models: a random tiny one against the Hugging Face engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving_fixture import Asked, Engine, random_checkpoint

pytest.importorskip("vllm.version")

from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.models.open import open_model
from normprobe.policies.spec import build

TIED = {"tie_word_embeddings": True}  # vLLM's Gemma 2 knows no other
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "llama": ("Llama", {"head_dim": 32}),
    "mistral": ("Mistral", {"head_dim": 32, "sliding_window": 24}),
    "phi3": ("Phi3", {}),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma2": ("Gemma2", {"head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 32, **TIED}),
    "gemma3": ("Gemma3", {"head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 32}),
}
PROBE = {"policy": "probe", "tau": {str(layer): 1.0 for layer in range(4)}, "max_tokens": 32}
POLICY = [
    {"policy": "alrr", "tau": {"1": 1e-6, "2": 1e-6}, "blow_up": 1e12, "growth": -1.0, "max_passes": 2},
    PROBE,
]


@pytest.mark.parametrize("family", FAMILIES)
def test_extra_passes_and_sites_are_those_of_the_hugging_face_engine(
    family: str, tmp_path: Path, start: Callable[..., Engine]
) -> None:
    name, more = FAMILIES[family]
    random_checkpoint(name, more, tmp_path)
    opened = open_model(tmp_path, check=False)
    # Eager: PyTorch's fused attention ignores the soft cap on Gemma 2's attention scores.
    opened.model.set_attn_implementation("eager")
    prompts = [[5 + i, 9, *range(30, 30 + 3 * i), 40] for i in range(8)]
    reference = HfEngine(opened).generate(prompts, 24, policy=build(POLICY, None))
    untouched = HfEngine(opened).generate(prompts, 24)
    assert reference.tokens != untouched.tokens
    engine = start(tmp_path, additional_config={"normprobe": {"policy": POLICY}})
    served = engine.serve({str(i): Asked(prompt, max_tokens=24) for i, prompt in enumerate(prompts)})
    assert served == {str(i): tokens for i, tokens in enumerate(reference.tokens)}


STABLELM = {"num_key_value_heads": 2}
UNFIT: dict[str, tuple[str, dict[str, Any], str]] = {
    "whole beside stale": ("StableLm", STABLELM, "two halves of its state"),
    "whole beside stale, parallel": ("Cohere", {}, "two halves of its state"),
    "recurrent": (
        "Jamba",
        {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "use_mamba_kernels": False},
        "of attention only",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_model_in_which_no_policy_can_act_is_refused_before_any_request(
    case: str, tmp_path: Path, start: Callable[..., Engine]
) -> None:
    name, more, message = UNFIT[case]
    random_checkpoint(name, more, tmp_path)
    with pytest.raises(NormprobeError, match=message):
        start(tmp_path, additional_config={"normprobe": {"policy": PROBE}})


def test_it_is_refused_in_compiled_form_too(tmp_path: Path, start: Callable[..., Engine]) -> None:
    random_checkpoint("StableLm", STABLELM, tmp_path)
    with pytest.raises(NormprobeError, match="two halves of its state"):
        start(tmp_path, additional_config={"normprobe": {"policy": PROBE}}, enforce_eager=False)
