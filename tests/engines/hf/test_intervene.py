"""A policy on a running model: against a slow implementation, against the plain model, and in other company."""

import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from normprobe.engines.base import Events, UntriggeredWarning
from normprobe.engines.hf import HfEngine, intervene
from normprobe.engines.hf.decode import decode
from normprobe.errors import NormprobeError
from normprobe.models.initialise import initialise
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.policies.controls.unchanged import Plain
from normprobe.policies.policy import Policy
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import FixedThreshold
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import PAD, VOCABULARY

ARCHITECTURES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}
LAYERS = (1, 2)
NEW_TOKENS = 20


@pytest.fixture(params=ARCHITECTURES, scope="module")
def opened(request: pytest.FixtureRequest) -> OpenModel:
    """A random model that says many different tokens; a tenth of the vocabulary ends a response, so lengths differ."""
    config_class, model_class = ARCHITECTURES[request.param]
    config = config_class(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        initializer_range=0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=list(range(10, len(VOCABULARY), 10)),
        pad_token_id=VOCABULARY.index(PAD),
    )
    model: PreTrainedModel = model_class(config)
    initialise(model, torch.Generator().manual_seed(3))
    return assemble(model, build_tokenizer(), request.param, check=False)


@pytest.fixture(scope="module")
def prompts(opened: OpenModel) -> list[list[int]]:
    """Prompts of many lengths."""
    return [opened.chat.prompt_ids(problem.question, "think") for problem in make_problems(9, 0)]


@pytest.fixture(scope="module")
def plain(opened: OpenModel, prompts: list[list[int]]) -> list[list[int]]:
    return decode(opened, prompts, NEW_TOKENS)


@pytest.fixture(scope="module")
def thresholds(opened: OpenModel, prompts: list[list[int]]) -> dict[int, float]:
    """τ of layers 1 and 2, midway between two norms of the first step: no tie that rounding could decide."""
    policy = Suppression(FixedThreshold(dict.fromkeys(LAYERS, 1e-3)), scale=0.0)
    _, events = generate(opened, policy, prompts, 1)
    middle = slice(len(prompts) // 2, len(prompts) // 2 + 2)
    return {
        layer: float(events.delta[events.layer == layer].sort().values[middle].mean()) for layer in LAYERS
    }


def generate(
    opened: OpenModel, policy: Policy, prompts: list[list[int]], n: int, batch_size: int = 128
) -> tuple[list[list[int]], Events]:
    """Tokens by prompt, and what the policy did."""
    result = HfEngine(opened).generate(prompts, n, policy=policy, batch_size=batch_size, record=True)
    assert result.events is not None
    return result.tokens, result.events


def slow(
    opened: OpenModel, prompt: list[int], change: Callable[[int, int, torch.Tensor], torch.Tensor | None]
) -> tuple[list[int], list[tuple[int, int]]]:
    """One request, no cache, no batch: the whole sequence anew for each token.

    change(step, layer, h): the new h, or None to leave it. Returns the tokens and the changed (step, layer), in order.
    """
    ids = list(prompt)
    while True:
        changed = []

        def hook(layer: int, hidden: torch.Tensor, changed: list = changed) -> torch.Tensor:
            hidden = hidden.clone()
            for position in range(len(prompt) - 1, len(ids)):
                new = change(position - len(prompt) + 1, layer, hidden[0, position])
                if new is not None:
                    hidden[0, position] = new
                    changed.append((position - len(prompt) + 1, layer))
            return hidden

        handles = [
            opened.blocks[layer].register_forward_hook(
                lambda _m, _i, output, layer=layer: hook(layer, output)
            )
            for layer in LAYERS
        ]
        with torch.inference_mode():
            logits = opened.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        for handle in handles:
            handle.remove()
        ids.append(int(logits[0, -1].argmax()))
        written = ids[len(prompt) :]
        if written[-1] in opened.chat.eos_ids or len(written) == NEW_TOKENS:
            return written, sorted(changed)


def places(events: Events, slot: int) -> list[tuple[int, int]]:
    mine = events.request == slot
    return list(zip(events.step[mine].tolist(), events.layer[mine].tolist(), strict=True))


def test_suppression_does_what_the_paper_says(
    opened: OpenModel, prompts: list[list[int]], plain: list[list[int]], thresholds: dict[int, float]
) -> None:
    tokens, events = generate(
        opened, Suppression(FixedThreshold(thresholds)), prompts, NEW_TOKENS, batch_size=4
    )
    for slot, prompt in enumerate(prompts):
        expected = slow(
            opened, prompt, lambda _step, layer, h: 0.1 * h if h.norm() > thresholds[layer] else None
        )
        assert (tokens[slot], places(events, slot)) == expected
    assert tokens != plain
    assert len({len(row) for row in tokens}) > 2  # rows left the batch at different times


def test_a_replay_shortens_the_dealt_tokens(
    opened: OpenModel, prompts: list[list[int]], plain: list[list[int]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    delta = 50 * torch.rand(len(prompts), 6, len(LAYERS), generator=generator)
    delta = torch.where(torch.rand(delta.shape, generator=generator) < 0.4, delta, 0.0)
    names = tuple(str(i) for i in range(len(prompts)))
    doses = Doses(delta, torch.full((len(prompts),), 6), LAYERS, names)
    tokens, events = generate(opened, ReplayedSuppression(doses), prompts, NEW_TOKENS, batch_size=4)
    for slot, prompt in enumerate(prompts):

        def shorten(step: int, layer: int, h: torch.Tensor, slot: int = slot) -> torch.Tensor | None:
            dose = delta[slot, step % 6, LAYERS.index(layer)]
            return h - min(dose, 2 * h.norm()) * h / h.norm() if dose > 0 else None

        assert (tokens[slot], places(events, slot)) == slow(opened, prompt, shorten)
    assert tokens != plain


def test_scale_one_and_infinite_threshold_are_the_plain_model(
    opened: OpenModel, prompts: list[list[int]], plain: list[list[int]], thresholds: dict[int, float]
) -> None:
    assert (
        generate(opened, Suppression(FixedThreshold(thresholds), scale=1.0), prompts, NEW_TOKENS)[0] == plain
    )
    with pytest.warns(UntriggeredWarning, match=r"largest norms it saw: \d.* at layer 1, \d.* at layer 2"):
        tokens, events = generate(opened, Plain(LAYERS), prompts, NEW_TOKENS)
    assert tokens == plain
    assert len(events.request) == 0


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_company_does_not_matter(
    opened: OpenModel, prompts: list[list[int]], thresholds: dict[int, float], batch_size: int
) -> None:
    policy = Suppression(FixedThreshold(thresholds))
    tokens, events = generate(opened, policy, prompts, NEW_TOKENS, batch_size=4)
    other_tokens, other_events = generate(opened, policy, prompts, NEW_TOKENS, batch_size=batch_size)
    assert other_tokens == tokens
    for name in ("request", "step", "layer"):
        assert torch.equal(getattr(events, name), getattr(other_events, name))
    torch.testing.assert_close(other_events.delta, events.delta, rtol=1e-4, atol=1e-4)


def test_only_the_last_prompt_token_and_what_follows_is_touched(
    opened: OpenModel, prompts: list[list[int]]
) -> None:
    """Everything is above this threshold, so each eligible state of each chosen layer is changed once, and no other."""
    tokens, events = generate(
        opened, Suppression(FixedThreshold({1: 1e-6})), prompts, NEW_TOKENS, batch_size=4
    )
    for slot, written in enumerate(tokens):
        assert places(events, slot) == [(step, 1) for step in range(len(written))]


def hooks(opened: OpenModel) -> int:
    return sum(len(block._forward_hooks) for block in opened.blocks)


def test_hooks_are_gone_after_an_exception(
    opened: OpenModel, prompts: list[list[int]], plain: list[list[int]]
) -> None:
    before = hooks(opened)
    with pytest.raises(ZeroDivisionError), intervene(opened, Suppression(FixedThreshold({1: 1.0}))):
        assert hooks(opened) == before + 1
        raise ZeroDivisionError
    assert hooks(opened) == before
    assert decode(opened, prompts, NEW_TOKENS) == plain


def test_a_hook_that_is_never_called_is_an_error(opened: OpenModel) -> None:
    before = hooks(opened)
    with (
        pytest.raises(NormprobeError, match=r"got no call of layer \[1, 2\]"),
        intervene(opened, Suppression(FixedThreshold(dict.fromkeys(LAYERS, 1.0)))),
    ):
        pass
    assert hooks(opened) == before


def test_a_pass_without_a_cache_is_refused(opened: OpenModel, prompts: list[list[int]]) -> None:
    ids = torch.tensor([prompts[0]])
    with (
        pytest.raises(
            NormprobeError, match=r"expected a pass with input_ids and a key-value cache, got one without"
        ),
        intervene(opened, Suppression(FixedThreshold({1: 1.0}))),
    ):
        opened.model(input_ids=ids, use_cache=False)


def test_a_layer_the_model_lacks_is_refused_before_anything_runs(opened: OpenModel) -> None:
    with (
        pytest.raises(NormprobeError, match=r"expected layers 0…3, got \[4\]"),
        intervene(opened, Suppression(FixedThreshold({1: 1.0, 4: 1.0}))),
    ):
        raise AssertionError
    assert hooks(opened) == 0


def test_bfloat16_scale_one_is_the_plain_model(opened: OpenModel, prompts: list[list[int]]) -> None:
    opened.model.to(torch.bfloat16)
    try:
        plain = decode(opened, prompts, NEW_TOKENS)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # every state is changed, by nothing
            assert (
                generate(opened, Suppression(FixedThreshold({1: 1e-6}), scale=1.0), prompts, NEW_TOKENS)[0]
                == plain
            )
    finally:
        opened.model.to(torch.float32)


def test_the_package_offers_intervene_and_loads_torch_only_then() -> None:
    program = (
        "import sys, normprobe; assert 'torch' not in sys.modules; "
        "from normprobe.engines.hf import intervene; assert normprobe.intervene is intervene; "
        "assert not hasattr(normprobe, 'interfere')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
