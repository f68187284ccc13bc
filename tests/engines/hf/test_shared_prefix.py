"""Continuations of one text are the same whether its states are computed once or for every prompt anew."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from normprobe.engines.hf import decode
from normprobe.engines.hf.shared_prefix import read_shared
from normprobe.models.initialise import initialise
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import END, PAD, VOCABULARY

NEW_TOKENS = 24
SHAPE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": VOCABULARY.index(END),
    "pad_token_id": VOCABULARY.index(PAD),
}
MODELS = {
    "full attention": (lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)), True),
    "sliding window": (lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)), False),
}


@pytest.fixture(params=MODELS)
def opened_and_shares(request) -> tuple[OpenModel, bool]:
    """A random model that says many different tokens, and whether its cache can be shared."""
    make, shares = MODELS[request.param]
    model = make().eval()
    initialise(model, torch.Generator().manual_seed(1))
    return assemble(model, build_tokenizer(), "random", check=False), shares


def prefixes(opened: OpenModel) -> list[list[int]]:
    """What stands before each of a thought's sentences, five times each, the last one first."""
    problem = make_problems(1, 0)[0]
    whole = (
        opened.chat.prompt_ids(problem.question, "think")
        + opened.tokenizer(problem.thought_text, add_special_tokens=False)["input_ids"]
    )
    return [whole[:n] for n in range(len(whole), len(whole) - 30, -6) for _ in range(5)]


def test_continuations_of_one_text_are_those_of_every_prompt_alone(opened_and_shares) -> None:
    opened, _ = opened_and_shares
    prompts = prefixes(opened)
    draws = np.random.default_rng(0).random((len(prompts), NEW_TOKENS))
    together = decode.decode(opened, prompts, NEW_TOKENS, 1.0, draws=draws)
    alone = [
        decode.decode(opened, [prompt], NEW_TOKENS, 1.0, draws=draws[i : i + 1])[0]
        for i, prompt in enumerate(prompts)
    ]
    assert together == alone
    assert len({tuple(tokens) for tokens in together}) > len(prompts) / 2  # else equality would be cheap


def test_the_text_is_read_once(opened_and_shares) -> None:
    opened, shares = opened_and_shares
    prompts, passes = prefixes(opened), []
    handle = opened.blocks[0].register_forward_hook(
        lambda _block, inputs, _output: passes.append(inputs[0].shape[0] * inputs[0].shape[1])
    )
    decode.decode(opened, prompts, 1)
    handle.remove()
    longest, n = max(map(len, prompts)), len(prompts)
    assert sum(passes) == (longest - 1 + n if shares else longest * n)


@torch.inference_mode()
def test_only_prompts_that_begin_alike_are_shared(opened_and_shares) -> None:
    opened, shares = opened_and_shares
    text = prefixes(opened)[0]
    other = [*text[:-1], text[-1] + 1 if text[-1] == 0 else text[-1] - 1]

    def shared(*prompts: list[int]) -> bool:
        return read_shared(opened, prompts, {"past_key_values": DynamicCache(config=opened.model.config)})

    assert shared(text, text[:5], text) == shares
    assert not shared(text, other)
    assert not shared(text)
    assert not shared(text[:1], text[:1])
