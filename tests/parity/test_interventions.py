"""ALRR and ERSS on real models: against slow implementations written from the paper, and against the plain model."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from parity_models import ARCHITECTURES, build
from transformers import DynamicCache, PreTrainedModel, StaticCache

from normprobe.engines.base import Events, UntriggeredWarning
from normprobe.engines.hf import HfEngine, intervene
from normprobe.engines.hf.decode import decode
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.policies.alrr import ALRR
from normprobe.policies.controls.damped_loop import DampedLoop
from normprobe.policies.controls.gated_recursion import EntropyGate, GatedRecursion, RandomGate
from normprobe.policies.erss import ERSS
from normprobe.policies.policy import Policy
from normprobe.policies.rows import norms
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import FixedThreshold
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer

LAYERS = (1, 2)
NEW_TOKENS = 12


@pytest.fixture(params=ARCHITECTURES, scope="module")
def opened(request: pytest.FixtureRequest) -> OpenModel:
    return assemble(build(request.param, n_layers=4), build_tokenizer(), request.param, check=False)


@pytest.fixture(scope="module")
def prompts(opened: OpenModel) -> list[list[int]]:
    return [opened.chat.prompt_ids(problem.question, "think") for problem in make_problems(6, 0)]


@pytest.fixture(scope="module")
def plain(opened: OpenModel, prompts: list[list[int]]) -> list[list[int]]:
    return decode(opened, prompts, NEW_TOKENS)


def generate(
    opened: OpenModel, policy: Policy, prompts: list[list[int]], n: int, **how: Any
) -> tuple[list[list[int]], Events]:
    """Tokens by prompt, and what the policy did."""
    result = HfEngine(opened).generate(prompts, n, policy=policy, record=True, **how)
    assert result.events is not None
    return result.tokens, result.events


@pytest.fixture(scope="module")
def threshold(opened: OpenModel, prompts: list[list[int]]) -> FixedThreshold:
    """τ between two norms of the first step, so that no tie can be decided by rounding."""
    _, events = generate(
        opened, Suppression(FixedThreshold(dict.fromkeys(LAYERS, 1e-6)), scale=0.0), prompts, 1
    )
    middle = slice(len(prompts) // 2 - 1, len(prompts) // 2 + 1)
    return FixedThreshold(
        {layer: float(events.delta[events.layer == layer].sort().values[middle].mean()) for layer in LAYERS}
    )


def eager(threshold: FixedThreshold) -> ALRR:
    """ALRR that nearly always keeps what it tried."""
    return ALRR(threshold, blow_up=50.0, growth=-0.9, max_passes=2, damping=0.75)


def inputs_of_blocks(opened: OpenModel, ids: list[int]) -> tuple[torch.Tensor, list[Any]]:
    """What the first block gets for these tokens, and every block's rotary angles: the model's own, by hooks."""
    seen: list[tuple[torch.Tensor, Any]] = []
    hooks = [
        block.register_forward_pre_hook(
            lambda _block, args, kwargs: seen.append((args[0], kwargs["position_embeddings"])),
            with_kwargs=True,
        )
        for block in opened.blocks
    ]
    opened.model(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen[0][0][0], [rotary for _, rotary in seen]


def slow_recursion(opened: OpenModel, prompt: list[int], policy: ALRR) -> tuple[list[int], list[tuple]]:
    """One request, no cache, no batch, all layers by hand.

    The extra pass of position t runs the block on the sequence [x_0 … x_t, y_t]: the last row stands at position t,
    sees the keys of x_0 … x_t and not its own. That is attention of the new state to the keys of the first pass.
    """
    tau = policy.threshold.tau

    def block(layer: Any, x: torch.Tensor, rotary: Any, position: torch.Tensor, blind: bool) -> torch.Tensor:
        """The layer on a sequence; blind: the last row doesn't see its own key."""
        attention, config = layer.self_attn, opened.model.config
        window = getattr(attention, "sliding_window", getattr(config, "sliding_window", None)) or 10**9
        ahead = position[:, None] - position[None]
        seen = (ahead >= 0) & (ahead < window)
        if blind:
            seen[-1, -1], seen[:-1, -1] = False, False
        mask = torch.where(seen, 0.0, torch.finfo(x.dtype).min)[None, None].to(x.dtype)
        angles = tuple(part[:, position] for part in rotary)
        out = layer(x[None], attention_mask=mask, position_embeddings=angles, position_ids=position[None])
        return (out[0] if isinstance(out, tuple) else out)[0]

    ids, events = list(prompt), []
    while True:
        x, rotary = inputs_of_blocks(opened, ids)
        position = torch.arange(len(ids))
        events = []
        for number, layer in enumerate(opened.blocks):
            y = block(layer, x, rotary[number], position, blind=False)
            if number in tau:
                for t in range(len(prompt) - 1, len(ids)):
                    state, norm = y[t], y[t].float().norm()
                    low, high = tau[number], policy.blow_up * tau[number]
                    tried = 0
                    while tried < policy.max_passes and low < norm < high:
                        again = torch.cat([x[: t + 1], state[None]])
                        where = torch.cat([position[: t + 1], position[t : t + 1]])
                        out = block(layer, again, rotary[number], where, blind=True)[-1]
                        mixed = (1 - policy.damping) * state + policy.damping * out
                        tried += 1
                        grown = mixed.float().norm()
                        if not (grown >= (1 + policy.growth) * norm and low < grown < high):
                            break
                        state, norm = mixed, grown
                    if tried:
                        events.append((t - len(prompt) + 1, number, tried))
                    y = torch.cat([y[:t], state[None], y[t + 1 :]])
            x = y
        ids.append(int(opened.unembed(x[-1]).argmax()))
        written = ids[len(prompt) :]
        if written[-1] in opened.chat.eos_ids or len(written) == NEW_TOKENS:
            return written, sorted(events)


@torch.no_grad()
@pytest.mark.parametrize("batch_sizes, growth", [((1, 4), -0.9), ((4,), 0.1)])
def test_alrr_equals_a_slow_implementation_of_the_paper(
    opened: OpenModel,
    prompts: list[list[int]],
    plain: list[list[int]],
    threshold: FixedThreshold,
    batch_sizes: tuple[int, ...],
    growth: float,
) -> None:
    policy = replace(eager(threshold), growth=growth)
    wanted = [slow_recursion(opened, prompt, policy) for prompt in prompts]
    for batch_size in batch_sizes:
        tokens, events = generate(opened, policy, prompts, NEW_TOKENS, batch_size=batch_size)
        columns = torch.stack([events.step, events.layer, events.passes], dim=1)
        done = [
            [tuple(row) for row in columns[events.request == slot].tolist()] for slot in range(len(prompts))
        ]
        assert list(zip(tokens, done, strict=True)) == wanted
        assert (tokens != plain) or growth > 0
        assert set(events.passes.tolist()) & {1, 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_settings_that_do_nothing_are_the_plain_model(
    opened: OpenModel, prompts: list[list[int]], threshold: FixedThreshold, dtype: torch.dtype
) -> None:
    never = FixedThreshold(dict.fromkeys(LAYERS, math.inf))
    always = FixedThreshold(dict.fromkeys(LAYERS, 1e-6))
    opened.model.to(dtype)
    try:
        plain = decode(opened, prompts, NEW_TOKENS)
        for policy in (
            ALRR(never),
            ALRR(always, growth=1e6),  # every pass is tried and thrown away
            ALRR(always, blow_up=1e9, growth=-1.0, damping=0.0),
            GatedRecursion(RandomGate(dict.fromkeys(LAYERS, 0.0))),
            GatedRecursion(EntropyGate(LAYERS, math.inf)),
            DampedLoop(RandomGate({2: 0.0}), first=1),
            ERSS(always, beta=0.0, probability=1.0, cooldown=0),
            ERSS(never, trigger="at_peaks", probability=1.0),
        ):
            assert generate(opened, policy, prompts, NEW_TOKENS, quiet=True)[0] == plain
    finally:
        opened.model.to(torch.float32)


def test_extra_passes_do_not_touch_the_cache(
    opened: OpenModel, prompts: list[list[int]], threshold: FixedThreshold
) -> None:
    """The last layer's extra pass changes no later input, so the whole cache must be that of the plain model."""
    last = len(opened.blocks) - 1
    ids = torch.tensor([prompts[0]])
    caches = []
    for policy in (
        Suppression(FixedThreshold({last: math.inf})),
        GatedRecursion(RandomGate({last: 1.0}), max_passes=3),
        DampedLoop(RandomGate({last: 1.0}), first=last - 1),
    ):
        cache = DynamicCache(config=opened.model.config)
        with pytest.warns(UntriggeredWarning) if not caches else torch.no_grad(), intervene(opened, policy):
            opened.model.generate(
                ids, past_key_values=cache, max_new_tokens=1, min_new_tokens=1, do_sample=False
            )
        caches.append(cache)
    for touched in caches[1:]:
        for one, other in zip(caches[0].layers, touched.layers, strict=True):
            assert torch.equal(one.keys, other.keys)
            assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("always_on", [False, True], ids=["compacted", "always_on"])
@pytest.mark.parametrize("cache", [DynamicCache, StaticCache])
def test_generate_inside_the_block_equals_our_own(
    opened: OpenModel, prompts: list[list[int]], threshold: FixedThreshold, cache: type, always_on: bool
) -> None:
    policy = eager(threshold)
    ours, events = generate(opened, policy, prompts, NEW_TOKENS)
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    how: dict[str, Any] = {} if cache is DynamicCache else {"cache_implementation": "static"}
    network: PreTrainedModel = opened.model
    with intervene(network, policy, always_on=always_on, record=True) as intervention:
        output = network.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, **how
        )
    for row, tokens in enumerate(ours):
        assert output[row, longest : longest + len(tokens)].tolist() == tokens
    assert intervention.events().step.tolist() == events.step.tolist()
    assert intervention.events().passes.tolist() == events.passes.tolist()


def test_a_damped_loop_depends_on_its_own_request_alone(
    opened: OpenModel, prompts: list[list[int]], plain: list[list[int]]
) -> None:
    policy = DampedLoop(RandomGate({2: 0.6}, seed=1), first=1)
    tokens, events = generate(opened, policy, prompts, NEW_TOKENS, batch_size=6)
    alone, alone_events = generate(opened, policy, prompts, NEW_TOKENS, batch_size=1)
    assert tokens == alone
    assert torch.equal(events.step, alone_events.step)
    assert set(events.passes.tolist()) == {policy.cost(0).extra_passes}
    assert torch.allclose(events.delta, alone_events.delta, atol=1e-3)


def test_steering_changes_what_it_says_it_changes(
    opened: OpenModel, prompts: list[list[int]], plain: list[list[int]], threshold: FixedThreshold
) -> None:
    """Batch sizes, order and names of the others do not matter; the request's own name keys its draws."""
    low = FixedThreshold({layer: 0.5 * tau for layer, tau in threshold.tau.items()})
    policy = ERSS(low, probability=0.5, cooldown=1, min_cosine=-1.0, beta=0.9, bank_size=3)
    tokens, events = generate(opened, policy, prompts, NEW_TOKENS, batch_size=6)
    alone, alone_events = generate(opened, policy, prompts, NEW_TOKENS, batch_size=1)
    assert tokens == alone
    assert tokens != plain
    assert torch.equal(events.step, alone_events.step)
    _, other = generate(opened, policy, prompts, NEW_TOKENS, names=[f"other {i}" for i in range(6)])
    assert len(other.step) == 0 or other.step.tolist() != events.step.tolist()


@torch.no_grad()
def test_bad_calls_are_refused_before_any_token(opened: OpenModel, prompts: list[list[int]]) -> None:
    policy = Suppression(FixedThreshold({1: 1.0}))
    ids = torch.tensor([prompts[0]])
    with pytest.raises(NormprobeError, match="padded on the left"), intervene(opened, policy):
        right = torch.ones_like(ids)
        right[0, -1] = 0
        opened.model.generate(ids, attention_mask=right, max_new_tokens=2)
    with (
        pytest.raises(NormprobeError, match="a name for each of 1 rows"),
        intervene(opened, policy, requests=["a", "b"]),
    ):
        opened.model.generate(ids, max_new_tokens=2)
    with pytest.raises(NormprobeError, match="within the model's 128 tokens"):
        generate(opened, policy, prompts, 128)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in opened.blocks)
    assert norms(torch.ones(1, 4)).item() == 2.0
