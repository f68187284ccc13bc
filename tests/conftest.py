"""Shapes and types are checked in every test; no test reaches a network; fixtures of small real models."""

import os
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"

from jaxtyping import install_import_hook

# Before any import of the package: jaxtyping shapes and all annotations are checked at every call.
install_import_hook("normprobe", "beartype.beartype")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def make_tiny_qwen3() -> Callable[..., torch.nn.Module]:
    """A function that builds a random Qwen3ForCausalLM from configuration: `make_tiny_qwen3(seed=0, vocab_size=256)`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def make(seed: int = 0, vocab_size: int = 256, n_layers: int = 4) -> torch.nn.Module:
        config = Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
        # transformers initialises from the global generator only: fork it, so that no other test sees the seed.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Qwen3ForCausalLM(config).eval()

    return make


@pytest.fixture
def tiny_qwen3(make_tiny_qwen3: Callable[..., torch.nn.Module]) -> torch.nn.Module:
    """A random Qwen3ForCausalLM: 4 layers, width 32, 4 heads of 8 (2 key-value heads), 256 tokens, context 512."""
    return make_tiny_qwen3()
