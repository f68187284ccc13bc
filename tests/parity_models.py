"""Each supported architecture, tiny and random; what several tests of parity build on."""

from typing import Any

import torch
from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from normprobe.models.initialise import initialise
from normprobe.problems.testbed.vocabulary import END, PAD, VOCABULARY

# A window shorter than the prompts below, where an architecture has one; spread weights, so that layers do something.
ARCHITECTURES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "llama": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 1}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 8}),
    "gemma2": (
        Gemma2Config,
        Gemma2ForCausalLM,
        {"head_dim": 16, "sliding_window": 8, "final_logit_softcapping": 2.0},
    ),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 2},
    ),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"sliding_window": 8}),
}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
# Experts, windows in every other layer, layers without positions, two sets of rotary frequencies, scaled logits.
VARIED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "mixtral": (MixtralConfig, MixtralForCausalLM, _EXPERTS),
    "qwen3-moe": (
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        _EXPERTS | {"moe_intermediate_size": 16, "head_dim": 8},
    ),
    "gpt-oss": (GptOssConfig, GptOssForCausalLM, _EXPERTS | {"head_dim": 8, "sliding_window": 8}),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM, {"no_rope_layer_interval": 2}),
    "gemma3 with two bases": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 2, "rope_local_base_freq": 100.0},
    ),
    "granite": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 8.0, "residual_multiplier": 0.5}),
    "cohere2": (Cohere2Config, Cohere2ForCausalLM, {"sliding_window": 8, "logit_scale": 0.25}),
}


def build(name: str, n_layers: int = 3) -> PreTrainedModel:
    configuration, architecture, options = (ARCHITECTURES | VARIED)[name]
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "pad_token_id": VOCABULARY.index(PAD),
        "bos_token_id": None,
        "eos_token_id": VOCABULARY.index(END),
    }
    model = architecture(configuration(**(sizes | options)))
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()
