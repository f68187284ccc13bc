"""The site and the extra pass in each family of models: a random tiny one against the Hugging Face engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from normprobe.engines import hf
from normprobe.models.initialise import initialise
from normprobe.models.opening import open_model
from normprobe.policies.spec import build
from normprobe.testbed.tokenizer import build_tokenizer
from normprobe.testbed.vocabulary import END, PAD, VOCABULARY

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
POLICY = [
    {"policy": "alrr", "tau": {"1": 1e-6, "2": 1e-6}, "blow_up": 1e12, "growth": -1.0, "max_passes": 2},
    {"policy": "probe", "tau": {str(layer): 1.0 for layer in range(4)}, "max_tokens": 32},
]


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A random model of this family over the testbed's vocabulary, whose responses vary."""
    name, more = FAMILIES[request.param]
    suffix = "TextConfig" if name == "Gemma3" else "Config"
    config = getattr(transformers, name + suffix)(
        **{
            "vocab_size": len(VOCABULARY),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "initializer_range": 0.2,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": VOCABULARY.index(END),
            "pad_token_id": VOCABULARY.index(PAD),
        }
        | more
    )
    model = getattr(transformers, name + "ForCausalLM")(config)
    initialise(model, torch.Generator().manual_seed(3))
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_extra_passes_and_sites_are_those_of_the_hugging_face_engine(
    checkpoint: Path, start: Callable[..., Engine]
) -> None:
    # Eager: PyTorch's fused attention ignores the soft cap on Gemma 2's attention scores.
    opened = open_model(checkpoint, check=False, attentions=True)
    prompts = [[5 + i, 9, *range(30, 30 + 3 * i), 40] for i in range(8)]
    reference = hf.generate(opened, build(POLICY, None), prompts, 24)
    untouched = hf.generate(opened, build(POLICY[1], None), prompts, 24)
    assert reference.tokens != untouched.tokens
    engine = start(checkpoint, additional_config={"normprobe": {"policy": POLICY}})
    served = engine.serve({str(i): Asked(prompt, max_tokens=24) for i, prompt in enumerate(prompts)})
    assert served == {str(i): tokens for i, tokens in enumerate(reference.tokens)}
