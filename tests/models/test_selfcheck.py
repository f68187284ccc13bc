"""The self-check lets a right model through and refuses each way of being wrong, in one line that names it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import Qwen3ForCausalLM

from normprobe.errors import NormprobeError
from normprobe.models.architectures import Anatomy, dissect
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer


def refused(model: Qwen3ForCausalLM, anatomy: Anatomy | None = None) -> str:
    with pytest.raises(NormprobeError, match="failed the self-check") as refusal:
        assemble(model, build_tokenizer(), "tiny", anatomy=anatomy)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_right_model_passes(tiny_qwen3):
    assert len(assemble(tiny_qwen3, build_tokenizer(), "tiny").blocks) == 4


@pytest.mark.parametrize(
    "wrong, told",
    [
        (lambda blocks: tuple(block.mlp for block in blocks), r"after block 0 against hidden_states\[1\]"),
        (lambda blocks: tuple(block.self_attn for block in blocks), r"after block 0"),
        (lambda blocks: blocks[::-1], "no call of layers|after block 0"),
        (lambda blocks: blocks[1:], "4 hidden states, got 3"),
        (lambda blocks: (blocks[0], blocks[2], blocks[1], blocks[3]), "after block 1"),
        (lambda blocks: (*blocks[:3], blocks[2]), "after the final norm"),
    ],
    ids=["mlp", "attention", "reversed", "short", "swapped", "last twice"],
)
def test_a_wrong_list_of_blocks_is_refused(tiny_qwen3, wrong, told):
    anatomy = dissect(tiny_qwen3)
    with pytest.raises(NormprobeError, match=told):
        assemble(
            tiny_qwen3, build_tokenizer(), "tiny", anatomy=replace(anatomy, blocks=wrong(anatomy.blocks))
        )


def test_a_wrong_final_norm_is_refused(tiny_qwen3):
    with torch.no_grad():
        tiny_qwen3.model.layers[0].input_layernorm.weight.fill_(2.0)
    wrong = replace(dissect(tiny_qwen3), final_norm=tiny_qwen3.model.layers[0].input_layernorm)
    assert "after the final norm" in refused(tiny_qwen3, wrong)


def test_a_softcap_that_the_logits_lack_is_refused(tiny_qwen3):
    with torch.no_grad():
        tiny_qwen3.model.embed_tokens.weight.mul_(50.0)
    assert "logits" in refused(tiny_qwen3, replace(dissect(tiny_qwen3), softcap=0.5))


def remade(model: Qwen3ForCausalLM, kind: type[Qwen3ForCausalLM]) -> Qwen3ForCausalLM:
    model.__class__ = kind
    return model


class Maskless(Qwen3ForCausalLM):
    """Reads padding as if it were text. (From positions alone Transformers would guess where the text begins.)"""

    def forward(self, *arguments, attention_mask=None, position_ids=None, **options):
        return super().forward(*arguments, **options)


class Positionless(Qwen3ForCausalLM):
    """Cannot be told where the text begins."""

    def forward(self, input_ids, attention_mask=None, use_cache=False, output_hidden_states=False):
        return super().forward(
            input_ids, attention_mask, use_cache=False, output_hidden_states=output_hidden_states
        )


class Companionable(nn.Module):
    """An MLP whose output depends on the other rows of the batch."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.mean(0, keepdim=True).expand_as(hidden)


def test_a_model_that_ignores_the_mask_is_refused(tiny_qwen3):
    assert "padded on the left" in refused(remade(tiny_qwen3, Maskless))


def test_a_model_that_takes_no_positions_is_refused(tiny_qwen3):
    assert "TypeError" in refused(remade(tiny_qwen3, Positionless))


def test_a_model_that_depends_on_its_batch_is_refused(tiny_qwen3):
    tiny_qwen3.model.layers[1].mlp = Companionable()
    assert "in a batch" in refused(tiny_qwen3)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_refused(tiny_qwen3, poison):
    with torch.no_grad():
        tiny_qwen3.model.layers[1].mlp.down_proj.weight[0, 0] = poison
    assert "NaN or infinity" in refused(tiny_qwen3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_passes(make_tiny_qwen3: Callable[..., Qwen3ForCausalLM], dtype):
    assert (
        assemble(make_tiny_qwen3(seed=2).to(dtype), build_tokenizer(), "tiny").identity.dtype
        == str(dtype)[6:]
    )


def test_two_stacks_of_blocks_are_refused(tiny_qwen3):
    tiny_qwen3.model.extra = nn.ModuleList([nn.Identity() for _ in range(4)])
    with pytest.raises(NormprobeError, match=r"one list of 4 decoder blocks .* got \['layers', 'extra'\]"):
        dissect(tiny_qwen3)


def test_a_model_without_final_norm_is_refused(tiny_qwen3):
    tiny_qwen3.model.norm = nn.Identity()
    with pytest.raises(NormprobeError, match="final norm of width 32"):
        dissect(tiny_qwen3)


def test_float16_that_overflows_names_the_dtypes_that_open(tiny_qwen3):
    with torch.no_grad():
        tiny_qwen3.model.layers[1].mlp.down_proj.weight.mul_(1e8)
    assert "open it with dtype bfloat16 or float32" in refused(tiny_qwen3.to(torch.float16))
