"""Models whose layers are not all alike: those of attention open and pass their proof, all others are refused."""

import parity_models
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, RwkvConfig, RwkvForCausalLM

from normprobe.errors import NormprobeError
from normprobe.models.architectures import check_blocks
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer


@pytest.mark.parametrize("name", parity_models.VARIED)
def test_a_model_of_attention_layers_opens(name):
    opened = assemble(parity_models.build(name, n_layers=4), build_tokenizer(), name)
    assert len(opened.blocks) == 4
    twin = assemble(opened.fresh(1).model, build_tokenizer(), "twin")
    assert twin.identity.weights != opened.identity.weights


def rwkv() -> PreTrainedModel:
    return RwkvForCausalLM(RwkvConfig(vocab_size=16, hidden_size=16, num_hidden_layers=2, context_length=8))


def test_a_recurrent_block_is_refused_by_its_name():
    with pytest.raises(NormprobeError, match="RwkvSelfAttention in it as layer 0"):
        check_blocks(rwkv().rwkv.blocks)


@pytest.mark.parametrize(
    "change, told",
    [
        (
            lambda block: setattr(block, "short", nn.Sequential(nn.Conv1d(32, 32, 3))),
            "Sequential in it as layer 2",
        ),
        (
            lambda block: setattr(block, "self_attn", nn.Linear(32, 32)),
            "0 attention modules in it as layer 2",
        ),
        (
            lambda block: setattr(block, "cross_attn", block.self_attn.__class__(block.self_attn.config, 0)),
            "2 attention",
        ),
    ],
)
def test_a_block_of_another_kind_is_refused(tiny_qwen3, change, told):
    change(tiny_qwen3.model.layers[2])
    with pytest.raises(NormprobeError, match=told):
        assemble(tiny_qwen3, build_tokenizer(), "tiny")


def test_the_twin_keeps_its_rotary_frequencies_in_low_precision(tiny_qwen3):
    frequencies = tiny_qwen3.model.rotary_emb.inv_freq.clone()
    opened = assemble(tiny_qwen3.to(torch.bfloat16), build_tokenizer(), "tiny", check=False)
    twin = opened.fresh(0)
    assert twin.identity.dtype == "bfloat16"
    assert torch.equal(twin.model.model.rotary_emb.inv_freq, frequencies)
