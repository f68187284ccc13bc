"""Damped loops against a loop over rows, on maps whose endpoint is known, and on real networks by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedModel

from normprobe.engines.hf import intervene
from normprobe.errors import NormprobeError
from normprobe.policies.controls.damped_loop import DampedLoop
from normprobe.policies.controls.gated_recursion import EntropyGate, RandomGate
from normprobe.policies.policy import RunningPolicy
from normprobe.policies.rows import Change, Rows

D, N = 6, 20
CPU = torch.device("cpu")
Map = Callable[[torch.Tensor], torch.Tensor]
seeds = st.integers(0, 2**31 - 1)


@dataclass
class Again:
    """A layer's rerun as engines give it: the other rows hold rubbish. compiled: never knows that none is active."""

    layer: Map
    compiled: bool = False

    def __call__(self, active: torch.Tensor, states: torch.Tensor) -> torch.Tensor | None:
        if not self.compiled and not active.any():
            return None
        out = torch.full_like(states, torch.nan)
        out[active] = self.layer(states[active])
        return out


def start(policy: DampedLoop, n_slots: int = N) -> RunningPolicy:
    running = policy.start(n_slots, D, CPU)
    running.reset(range(n_slots), [f"request {slot}" for slot in range(n_slots)])
    return running


def run(
    policy: DampedLoop, entry: torch.Tensor, layers: list[Map], compiled: bool = False
) -> tuple[torch.Tensor, list[Change]]:
    """The block's ordinary output, and what the policy made of each of its layers in one pass."""
    running, state, changes = start(policy), entry, []
    step = torch.arange(N) % 4 - 1  # the first of four is of a prompt
    for number, layer in zip(policy.layers, [lambda x: x, *layers], strict=True):
        state = layer(state)
        rows = Rows(state, torch.arange(N), step, torch.linspace(0, 3, N))
        changes.append(running.apply(rows, number, Again(layer, compiled)))
    running.finish()
    return state, changes


def network(seed: int) -> Map:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(D, D, generator=generator) / 2
    return lambda x: x + torch.tanh(x @ weight)


@pytest.mark.parametrize("compiled", [False, True])
@given(seeds, st.integers(1, 4), st.integers(2, 5), st.floats(0, 1))
def test_active_rows_take_the_damped_steps_and_no_other_row_moves(
    compiled: bool, seed: int, width: int, steps: int, share: float
) -> None:
    layers = [network(seed + i) for i in range(width)]
    entry = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
    policy = DampedLoop(RandomGate({3 + width - 1: share}, seed), first=3, steps=steps)
    plain, changes = run(policy, entry, layers, compiled)
    assert policy.layers == tuple(range(2, 3 + width))
    assert policy.acts_at == (policy.last,) == policy.layers[-1:]
    assert not any(change.triggered.any() for change in changes[:-1])
    final = changes[-1]
    for i in range(N):
        state = entry[i].double()
        for _ in range(steps):
            out = state
            for layer in layers:
                out = layer(out.float()).double()
            state = state + (out - state) / steps
        wanted = state.float() if final.triggered[i] else plain[i]
        assert torch.allclose(final.hidden[i], wanted, atol=1e-4)
        assert torch.equal(final.hidden[i], plain[i]) or bool(final.triggered[i])
    passes = torch.zeros(N).long() if final.passes is None else final.passes
    assert passes.tolist() == (final.triggered * (steps - 1) * width).tolist()
    assert policy.cost(0).extra_passes == (steps - 1) * width
    assert not final.triggered[torch.arange(N) % 4 == 0].any()


def test_a_constant_field_is_followed_exactly_and_a_straight_one_as_euler_does() -> None:
    entry = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    always = DampedLoop(RandomGate({1: 1.0}), first=1, steps=4)
    plain, changes = run(always, entry, [lambda x: x + 2])
    assert torch.allclose(
        changes[-1].hidden, plain
    )  # smaller steps along a constant field end where one does
    grown, changes = run(
        always, entry, [lambda x: 2 * x]
    )  # ẋ = x: one step gives 2, four give (5/4)⁴, the way e
    active = changes[-1].triggered
    assert torch.allclose(changes[-1].hidden[active], 1.25**4 * entry[active])
    assert torch.equal(changes[-1].hidden[~active], grown[~active])


def test_uncertain_tokens_can_open_the_gate() -> None:
    policy = DampedLoop(EntropyGate((1,), above=1.5), first=1)
    _, changes = run(policy, torch.ones(N, D), [lambda x: 2 * x])
    assert changes[-1].triggered.tolist() == [i % 4 > 0 and 3 * i / (N - 1) > 1.5 for i in range(N)]


@pytest.mark.parametrize(
    "n_layers, block", [(28, (12, 15)), (12, (4, 7)), (30, (13, 16)), (4, (1, 2)), (3, (1, 1)), (2, (1, 1))]
)
def test_the_middle_of_a_model_spends_the_passes_it_is_given(n_layers: int, block: tuple[int, int]) -> None:
    """The paper's window of Qwen3-1.7B, with 28 layers, is 12 … 15."""
    policy = DampedLoop.of(n_layers, 0.05, seed=3)
    assert (policy.first, policy.last) == block
    assert isinstance(policy.gate, RandomGate)
    assert policy.gate.rate[policy.last] * policy.cost(0).extra_passes == pytest.approx(0.05)
    assert DampedLoop.of(n_layers, float("inf"), seed=3).gate == RandomGate({policy.last: 1.0}, 3)


def test_impossible_blocks_are_refused() -> None:
    for gate, first, steps, expected in (
        (RandomGate({2: 1.0}), 0, 3, "a block from layer 1 on"),
        (RandomGate({2: 1.0}), 3, 3, "a block from layer 1 on"),
        (RandomGate({2: 1.0, 3: 1.0}), 1, 3, "a gate at its last layer"),
        (RandomGate({2: 1.0}), 1, 1, "steps ≥ 2"),
    ):
        with pytest.raises(NormprobeError, match=expected):
            DampedLoop(gate, first, steps)


@torch.no_grad()
def test_in_a_model_the_block_reads_the_keys_of_the_first_pass(tiny_qwen3: PreTrainedModel) -> None:
    """The first token after the loop, with the layers' further passes made by hand on the sequence [x_0 … x_t, y]."""
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    n, decoder = ids.shape[1], tiny_qwen3.get_decoder()
    calls: list[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = []
    hooks = [
        block.register_forward_pre_hook(
            lambda _block, args, kwargs: calls.append((args[0], kwargs["position_embeddings"])),
            with_kwargs=True,
        )
        for block in decoder.layers
    ]
    tiny_qwen3(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    first, last, steps = 1, len(decoder.layers) - 1, 3
    seen = torch.ones(n + 1, n + 1).tril().bool()
    seen[-1, -1], seen[:-1, -1] = False, False
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]

    def once_more(block: nn.Module, number: int, state: torch.Tensor) -> torch.Tensor:
        given, angles = calls[number]
        doubled = tuple(torch.cat([part, part[:, -1:]], dim=1) for part in angles)
        position = torch.tensor([[*range(n), n - 1]])
        out = block(
            torch.cat([given, state[None, None]], dim=1),
            attention_mask=mask,
            position_embeddings=doubled,
            position_ids=position,
        )
        return (out[0] if isinstance(out, tuple) else out)[0, -1]

    state = calls[first][0][0, -1]
    for _ in range(steps):
        out = state
        for number in range(first, last + 1):
            out = once_more(decoder.layers[number], number, out)
        state = state + (out - state) / steps
    wanted = tiny_qwen3.get_output_embeddings()(decoder.norm(state))
    with intervene(
        tiny_qwen3, DampedLoop(RandomGate({last: 1.0}), first, steps), record=True
    ) as intervention:
        found = tiny_qwen3.generate(
            ids,
            max_new_tokens=1,
            min_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert torch.allclose(found.logits[0][0], wanted, atol=1e-4)
    events = intervention.events()
    assert (events.layer.tolist(), events.passes.tolist()) == ([last], [(steps - 1) * (last - first + 1)])
