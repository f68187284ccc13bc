"""Attention a block of queries at a time, against eager attention in every kind of model that Transformers has."""

import math
from typing import Any

import pytest
import torch
from parity_models import ARCHITECTURES, build
from transformers import GptOssConfig, GptOssForCausalLM, PreTrainedModel

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import VOCABULARY
from normprobe.tracing.attention import attention_entropies, blockwise_attention

LENGTHS = (23, 17, 30)


def gpt_oss() -> PreTrainedModel:
    """Sinks, sliding windows, experts."""
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
        initializer_range=0.2,
        pad_token_id=0,
    )
    return GptOssForCausalLM(config).eval()


@pytest.fixture(params=[*ARCHITECTURES, "gpt_oss"])
def opened(request: pytest.FixtureRequest) -> OpenModel:
    model = gpt_oss() if request.param == "gpt_oss" else build(request.param)
    return assemble(model, build_tokenizer(), request.param, check=False)


def padded() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, len(VOCABULARY), (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def entropy(weights: torch.Tensor) -> torch.Tensor:
    a = weights.double()
    return -(a * a.clamp(min=1e-300).log()).sum(-1).mean(1)


@torch.no_grad()
@pytest.mark.parametrize("scores", [1, 700, 10**6])
def test_output_and_entropies_are_those_of_eager_attention(opened, scores):
    inputs = padded()
    valid = inputs["attention_mask"].bool()
    before = opened.model.config._attn_implementation
    opened.model.set_attn_implementation("eager")
    expected = opened.model(**inputs, output_attentions=True)
    opened.model.set_attn_implementation(before)
    with attention_entropies(opened, scores) as latest:
        logits = opened.model(**inputs).logits
    assert opened.model.config._attn_implementation == before
    torch.testing.assert_close(logits[valid], expected.logits[valid], rtol=1e-4, atol=1e-5)
    assert sorted(latest) == [0, 1, 2]
    for layer, weights in enumerate(expected.attentions):
        found = latest[layer].double()[valid]
        torch.testing.assert_close(found, entropy(weights)[valid], rtol=0, atol=1e-5)


@torch.no_grad()
def test_in_chunks_over_a_cache_it_is_the_same(opened):
    ids = padded()["input_ids"]
    with attention_entropies(opened, 700) as latest:
        whole = opened.model(ids).logits
        expected = dict(latest)
        past, logits, found = None, [], []
        for start in range(0, ids.shape[1], 11):
            out = opened.model(ids[:, start : start + 11], past_key_values=past, use_cache=True)
            past = out.past_key_values
            logits.append(out.logits)
            found.append(dict(latest))
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-5)
    for layer, values in expected.items():
        chunks = torch.cat([of[layer] for of in found], 1)
        torch.testing.assert_close(chunks, values, rtol=0, atol=1e-5)


class _Module(torch.nn.Module):
    is_causal = True


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_one_query_and_huge_scores(scale):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 4, generator=generator) for n in (1, 9, 9))
    output, found = blockwise_attention(_Module(), scale * q, k, v, None, scratch=1)
    a = torch.softmax((scale * q @ k.transpose(2, 3)).double() / 2, -1)
    torch.testing.assert_close(output.double(), (a @ v.double()).transpose(1, 2), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.double(), entropy(a), rtol=0, atol=1e-4)


def test_a_mask_that_is_added_hides_and_shifts():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8, generator=generator) for _ in range(3))
    mask = torch.randn(2, 4, 6, 6, generator=generator).masked_fill(
        torch.ones(6, 6).triu(1).bool(), -math.inf
    )
    output, found = blockwise_attention(_Module(), q, k, v, mask, scratch=50)
    a = torch.softmax((q @ k.transpose(2, 3)).double() / math.sqrt(8) + mask, -1)
    torch.testing.assert_close(output.double(), (a @ v.double()).transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.double(), entropy(a), rtol=0, atol=1e-5)


def test_attention_of_another_kind_is_refused():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(
        NormprobeError, match="queries, keys, values, a mask and sinks, got also position_bias"
    ):
        blockwise_attention(_Module(), q, q, q, None, scratch=9, position_bias=torch.zeros(1, 1, 2, 2))


@torch.no_grad()
def test_leaving_by_an_exception_restores_the_attention(opened):
    before: Any = opened.model.config._attn_implementation
    with pytest.raises(RuntimeError), attention_entropies(opened, 100):
        raise RuntimeError
    assert opened.model.config._attn_implementation == before
