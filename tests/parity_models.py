"""Each supported architecture, tiny and random; what several tests of parity build on."""

from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
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


def build(name: str, n_layers: int = 3) -> PreTrainedModel:
    configuration, architecture, options = ARCHITECTURES[name]
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
