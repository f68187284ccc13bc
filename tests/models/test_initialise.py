"""Fresh weights: reproducible, independent of dtype, tied weights drawn once, norms the identity."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from normprobe.models.initialise import initialise

SIZES = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def _weights(model, seed=0):
    initialise(model, torch.Generator().manual_seed(seed))
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_the_seed_alone_decides():
    a, b = (Qwen3ForCausalLM(Qwen3Config(**SIZES)) for _ in range(2))
    first, second = _weights(a), _weights(b)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = _weights(b, seed=1)
    assert all(not torch.equal(first[name], other[name]) for name in first if first[name].ndim > 1)


def test_the_global_generator_is_neither_read_nor_moved():
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES))
    before = torch.random.get_rng_state()
    _weights(model)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_bfloat16_gets_the_same_draws_rounded():
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES))
    exact = _weights(model)
    rounded = _weights(model.to(torch.bfloat16))
    assert all(torch.equal(exact[name].to(torch.bfloat16), rounded[name]) for name in exact)


def test_matrices_have_the_configured_spread():
    weights = _weights(Qwen3ForCausalLM(Qwen3Config(**SIZES, initializer_range=0.05)))
    values = torch.cat([w.flatten() for w in weights.values() if w.ndim > 1])
    assert values.std() == pytest.approx(0.05, rel=0.02)
    assert abs(values.mean()) < 0.001


def test_tied_weights_are_drawn_once():
    """Everything after the embedding is what it would be were the unembedding not there."""
    tied = _weights(Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=True)))
    untied = _weights(Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=False)))
    assert set(untied) - set(tied) == {"lm_head.weight"}
    assert all(torch.equal(tied[name], untied[name]) for name in tied)


@pytest.mark.parametrize(
    "model",
    [
        lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
        lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES)),
        lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_embd=64, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=1)
        ),
    ],
    ids=["qwen3", "gemma2", "gpt2"],
)
def test_norms_neither_scale_nor_shift(model):
    """Gemma multiplies by 1 + weight, the others by weight; either way a normed vector has length √d."""
    model = model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    initialise(model, torch.Generator().manual_seed(0))
    norm = next(module for name, module in model.named_modules() if name.endswith(("model.norm", "ln_f")))
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    x = x - x.mean(-1, keepdim=True)  # LayerNorm centres
    torch.testing.assert_close(norm(x).norm(dim=-1), torch.full((5,), 8.0), rtol=1e-3, atol=0)
