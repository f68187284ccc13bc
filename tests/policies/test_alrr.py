"""ALRR and its gated baselines against a slow reference, one row at a time, over a real (small) block."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profile_fixture import profile
from torch import nn

from normprobe.errors import NormprobeError
from normprobe.policies.alrr import ALRR
from normprobe.policies.controls.gated_recursion import (
    EntropyGate,
    Gate,
    GatedRecursion,
    RandomGate,
)
from normprobe.policies.draws import keys, request_key, uniform
from normprobe.policies.policy import Policy
from normprobe.policies.rows import Change, Rerun, Rows, norms
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold

CPU = torch.device("cpu")
D = 8
LAYER = 2
REQUESTS = [f"request {slot}" for slot in range(5)]

seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
taus = st.floats(0.5, 10)
dampings = st.sampled_from([0.0, 0.3, 0.5, 1.0])


class Block(nn.Module):
    """x + MLP(x / ‖x‖), of a token by itself; about half of the states grow."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(D, 16), nn.GELU(), nn.Linear(16, D))
        self.layers = self.layers.to(dtype).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 3 * self.layers(x / x.norm(dim=-1, keepdim=True).clamp_min(1e-6))


@dataclass
class Rerunning:
    """A rerun as engines give it: row by row, so that no matrix product depends on the batch; other rows hold rubbish.

    compiled: never knows that no row is active.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    compiled: bool = False
    asked: list[int] = field(default_factory=list)

    def __call__(self, active: torch.Tensor, states: torch.Tensor) -> torch.Tensor | None:
        self.asked.append(int(active.sum()))
        if not self.compiled and not active.any():
            return None
        out = torch.full_like(states, torch.nan)
        for i in active.nonzero()[:, 0]:
            out[i] = self.function(states[i])
        return out


def random_rows(seed: int, dtype: torch.dtype = torch.float32, n: int = 20) -> Rows:
    """Rows of 5 requests and of padding, steps from −1 on, norms that vary a lot."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, D, generator=generator) * torch.randn(n, 1, generator=generator).exp()
    step, slot = torch.arange(n) // 5 - 1, torch.arange(n) % 5
    return Rows(
        hidden.to(dtype), torch.where(step < 0, -1, slot), step, 3 * torch.rand(n, generator=generator)
    )


def apply(policy: Policy, rows: Rows, rerun: Rerun, layer: int = LAYER) -> Change:
    running = policy.start(len(REQUESTS), D, CPU)
    running.reset(range(len(REQUESTS)), REQUESTS)
    return running.apply(rows, layer, rerun)


def mixture(state: torch.Tensor, out: torch.Tensor, damping: float) -> torch.Tensor:
    return ((1 - damping) * state.double() + damping * out.double()).to(state.dtype)


def length(state: torch.Tensor) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in state))


def slow(policy: ALRR, tau: float, state: torch.Tensor, block: Block) -> tuple[torch.Tensor, bool, int]:
    """One eligible row by the book: its new state, whether it triggered, how many extra passes were made."""
    passes, norm = 0, length(state)
    top = policy.blow_up * tau
    triggered = tau < norm < top
    while triggered and passes < policy.max_passes:
        new = mixture(state, block(state), policy.damping)
        passes += 1
        grown = length(new)
        if not (grown >= (1 + policy.growth) * norm and tau < grown < top):
            break
        state, norm = new, grown
    return state, triggered, passes


@pytest.mark.parametrize("compiled", [False, True])
@given(
    seeds,
    dtypes,
    taus,
    st.sampled_from([1.2, 1.5, 7.0]),
    st.integers(1, 4),
    st.sampled_from([-0.5, 0.01, 0.2]),
    dampings,
)
def test_recursion_equals_a_slow_implementation(
    compiled: bool,
    seed: int,
    dtype: torch.dtype,
    tau: float,
    blow_up: float,
    passes: int,
    growth: float,
    damping: float,
) -> None:
    rows, block = random_rows(seed, dtype), Block(dtype)
    policy = ALRR(FixedThreshold({LAYER: tau}), blow_up, passes, growth, damping)
    change = apply(policy, rows, Rerunning(block, compiled))
    assert change.passes is not None
    assert change.hidden.dtype == dtype
    for i, state in enumerate(rows.hidden):
        expected = slow(policy, tau, state, block) if rows.step[i] >= 0 else (state, False, 0)
        found = (change.hidden[i], bool(change.triggered[i]), int(change.passes[i]))
        assert found[1:] == expected[1:]
        torch.testing.assert_close(
            found[0], expected[0], rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-6
        )
        if torch.equal(expected[0], state):
            assert torch.equal(found[0], state)


def test_the_random_cases_hold_passes_kept_and_thrown_away() -> None:
    """Else the test above would say little."""
    rows = random_rows(0, n=400)
    change = apply(ALRR(FixedThreshold({LAYER: 2.0}), 7.0, 3, 0.2), rows, Rerunning(Block(torch.float32)))
    assert change.passes is not None
    moved = (change.hidden != rows.hidden).any(dim=1)
    assert int((change.triggered & ~moved).sum()) > 20
    assert 20 < int(moved.sum()) < int(change.triggered.sum())
    assert set(change.passes.tolist()) == {0, 1, 2, 3}


@given(seeds, dtypes)
def test_undamped_passes_are_taken_as_they_are(seed: int, dtype: torch.dtype) -> None:
    rows, block = random_rows(seed, dtype), Block(dtype)
    policy = ALRR(FixedThreshold({LAYER: 1e-3}), blow_up=1e9, growth=-1.0)
    change = apply(policy, rows, Rerunning(block))
    expected = torch.stack([block(state) for state in rows.hidden])
    assert torch.equal(change.hidden, torch.where(rows.eligible[:, None], expected, rows.hidden))


@given(seeds, dtypes, st.booleans(), st.integers(1, 3))
def test_an_infinite_threshold_changes_no_bit_and_asks_for_no_row(
    seed: int, dtype: torch.dtype, compiled: bool, passes: int
) -> None:
    rows, rerun = random_rows(seed, dtype), Rerunning(Block(dtype), compiled)
    change = apply(ALRR(FixedThreshold({LAYER: math.inf}), max_passes=passes), rows, rerun)
    assert torch.equal(change.hidden, rows.hidden)
    assert not change.triggered.any()
    assert change.passes is not None
    assert not change.passes.any()
    assert rerun.asked == [0] * (passes if compiled else 1)


@given(seeds, dtypes, st.integers(1, 3))
def test_full_damping_tries_and_changes_nothing(seed: int, dtype: torch.dtype, passes: int) -> None:
    rows, rerun = random_rows(seed, dtype), Rerunning(Block(dtype))
    always = FixedThreshold({LAYER: 1e-3})
    for policy in (
        ALRR(always, 1e9, passes, growth=0.0, damping=0.0),
        GatedRecursion(RandomGate({LAYER: 1.0}), passes, damping=0.0),
    ):
        change = apply(policy, rows, rerun)
        assert torch.equal(change.hidden, rows.hidden)
        assert change.passes is not None
        assert change.passes.tolist() == [passes if eligible else 0 for eligible in rows.eligible]


def scaled(*factors: float) -> Rerunning:
    """A block that lengthens by the first factor at the first pass, by the next at the next."""
    given = iter(factors)
    return Rerunning(lambda state: state * next(given))


@pytest.mark.parametrize(
    "norm, max_passes, factors, kept, passes",
    [
        # The window is (8, 16), the growth asked for a quarter: all exact in float32.
        (8.0, 1, [], 8.0, 0),  # at τ: not inside
        (16.0, 1, [], 16.0, 0),  # at b·τ: not inside
        (7.0, 1, [], 7.0, 0),
        (17.0, 1, [], 17.0, 0),
        (10.0, 1, [1.25], 12.5, 1),  # just enough
        (10.0, 1, [1.1875], 10.0, 1),  # too little: tried, thrown away
        (10.0, 1, [1.6], 10.0, 1),  # lands on b·τ
        (10.0, 1, [2.0], 10.0, 1),  # blows up
        (10.0, 1, [0.5], 10.0, 1),  # below τ
        (10.0, 3, [1.25, 1.25], 12.5, 2),  # 15.625 from 12.5 is kept …
        (8.5, 4, [1.25, 1.25, 1.25], 13.28125, 3),  # … and a third that leaves the window is not
        (10.0, 4, [1.1875], 10.0, 1),  # who fails once is not asked again
        (10.0, 2, [math.nan], 10.0, 1),
    ],
)
def test_edges_of_the_window_and_of_growth(
    norm: float, max_passes: int, factors: list[float], kept: float, passes: int
) -> None:
    policy = ALRR(FixedThreshold({LAYER: 8.0}), 2.0, max_passes, 0.25)
    if (norm, max_passes) == (10.0, 3):
        kept = 15.625
        max_passes, policy = 2, replace(policy, max_passes=2)
    hidden = torch.zeros(1, D)
    hidden[0, 3] = norm
    change = apply(policy, Rows(hidden, torch.tensor([0]), torch.tensor([0])), scaled(*factors))
    assert change.passes is not None
    assert (float(change.hidden[0, 3]), int(change.passes[0])) == (kept, passes)
    assert bool(change.triggered[0]) == (passes > 0)


def walk(policy: Policy, norms_by_pass: torch.Tensor, slots: list[int]) -> list[Change]:
    """The requests of these columns, pass after pass, at these slots."""
    running = policy.start(6, D, CPU)
    running.reset(slots, [REQUESTS[i] for i in range(len(slots))])
    changes = []
    for step, row in enumerate(norms_by_pass):
        rows = Rows(
            direction(len(slots)) * row[:, None], torch.tensor(slots), torch.full((len(slots),), step)
        )
        changes.append(running.apply(rows, LAYER, Rerunning(Block(torch.float32))))
        running.finish()
    return changes


def direction(n: int) -> torch.Tensor:
    return (torch.ones(D) / math.sqrt(D)).expand(n, D)


@given(seeds)
def test_the_threshold_learns_from_the_norms_before_the_extra_pass(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    norm = 35 * (0.3 * torch.randn(30, 2, generator=generator)).exp()
    threshold = AdaptiveThreshold.of(profile(), [LAYER], k=0.0, prior_tokens=4.0)
    policy = ALRR(threshold, blow_up=7.0, growth=0.01)
    state, slot = threshold.start(2, CPU), torch.arange(2)
    for row, change in zip(norm, walk(policy, norm, [0, 1]), strict=True):
        before = norms(direction(2) * row[:, None])
        tau = state.tau(LAYER, slot)
        assert torch.equal(change.triggered, (before > tau) & (before < 7.0 * tau))
        state.observe(LAYER, slot, before, torch.tensor([True, True]))
        state.finish()


@given(seeds)
def test_what_a_request_gets_depends_on_no_other_and_on_no_slot(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    norm = 35 * (0.4 * torch.randn(12, 3, generator=generator)).exp()
    adaptive = AdaptiveThreshold.of(profile(), [LAYER], k=0.0, prior_tokens=4.0)
    for policy in (
        ALRR(adaptive, blow_up=7.0, growth=0.01, max_passes=2),
        GatedRecursion(RandomGate({LAYER: 0.5}), max_passes=2),
    ):
        together, alone = walk(policy, norm, [4, 0, 3]), walk(policy, norm[:, :1], [1])
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a.hidden[:1], b.hidden)
            assert torch.equal(a.triggered[:1], b.triggered)


def test_a_reset_forgets_a_request() -> None:
    policy = ALRR(AdaptiveThreshold.of(profile(), [LAYER], k=0.0, prior_tokens=1.0), growth=-0.9)
    running = policy.start(1, D, CPU)
    rows = Rows(direction(1) * 40.0, torch.tensor([0]), torch.tensor([0]))
    rerun = Rerunning(Block(torch.float32))
    fresh = running.apply(rows, LAYER, rerun).triggered
    for _ in range(50):
        running.apply(replace(rows, hidden=direction(1) * 80.0), LAYER, rerun)
        running.finish()
    assert not torch.equal(running.apply(rows, LAYER, rerun).triggered, fresh)
    running.finish()
    running.reset([0], ["another"])
    assert torch.equal(running.apply(rows, LAYER, rerun).triggered, fresh)


def opens(gate: Gate, rows: Rows, i: int) -> bool:
    """Whether a gate lets a row through, by the book."""
    assert rows.entropy is not None
    match gate:
        case RandomGate():
            key = keys([request_key(REQUESTS[int(rows.slot[i])])], CPU)
            return float(uniform(key, LAYER, rows.step[i : i + 1], gate.seed)) < gate.rate[LAYER]
        case EntropyGate():
            return float(rows.entropy[i]) > gate.above


@given(
    seeds,
    dtypes,
    st.sampled_from(
        [
            RandomGate({LAYER: 0.5, 0: 0.1}, seed=3),
            RandomGate({LAYER: 0.0}),
            RandomGate({LAYER: 1.0}),
            EntropyGate((LAYER,), 1.5),
        ]
    ),
    st.integers(1, 3),
    dampings,
)
def test_gated_recursion_keeps_every_pass_where_its_gate_is_open(
    seed: int, dtype: torch.dtype, gate: Gate, passes: int, damping: float
) -> None:
    rows, block = random_rows(seed, dtype), Block(dtype)
    change = apply(GatedRecursion(gate, passes, damping), rows, Rerunning(block))
    assert change.passes is not None
    for i, state in enumerate(rows.hidden):
        open_here = bool(rows.step[i] >= 0) and opens(gate, rows, i)
        assert bool(change.triggered[i]) == open_here
        assert int(change.passes[i]) == (passes if open_here else 0)
        expected = state
        for _ in range(passes if open_here else 0):
            expected = mixture(expected, block(expected), damping)
        torch.testing.assert_close(
            change.hidden[i], expected, rtol=1e-5 if dtype == torch.float32 else 3e-2, atol=1e-5
        )
        if not open_here:
            assert torch.equal(change.hidden[i], state)


def test_a_random_gate_opens_as_often_as_told_and_at_other_tokens_with_another_seed() -> None:
    n = 4000
    rows = Rows(torch.ones(n, D), torch.zeros(n, dtype=torch.int64), torch.arange(n))
    opened = [
        apply(
            GatedRecursion(RandomGate({LAYER: 0.2, 1: 0.2}, seed)), rows, Rerunning(lambda x: x), layer
        ).triggered
        for seed, layer in ((0, LAYER), (1, LAYER), (0, 1))
    ]
    for one in opened:
        assert float(one.float().mean()) == pytest.approx(0.2, abs=0.025)  # four standard errors
    for other in opened[1:]:
        assert float((opened[0] & other).float().mean()) == pytest.approx(0.04, abs=0.0125)


def test_an_entropy_gate_needs_an_engine_that_tells_the_entropy() -> None:
    rows = replace(random_rows(0), entropy=None)
    with pytest.raises(NormprobeError, match="expected an engine that knows the output entropy") as caught:
        apply(GatedRecursion(EntropyGate((LAYER,), 1.0)), rows, Rerunning(lambda x: x))
    assert "\n" not in str(caught.value)


FIXED = FixedThreshold({LAYER: 1.0})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ALRR(FIXED, blow_up=1.0), "expected blow_up > 1"),
        (lambda: ALRR(FIXED, blow_up=math.nan), "expected blow_up > 1"),
        (lambda: ALRR(FIXED, max_passes=0), "max_passes ≥ 1, got 0"),
        (lambda: ALRR(FIXED, growth=math.nan), "expected growth"),
        (lambda: ALRR(FIXED, damping=1.1), r"expected damping in \[0, 1\], got 1.1"),
        (lambda: ALRR(FIXED, damping=math.nan), "expected damping"),
        (lambda: GatedRecursion(RandomGate({1: 1.0}), max_passes=-1), "max_passes ≥ 1"),
        (lambda: GatedRecursion(RandomGate({1: 1.0}), damping=-0.1), "expected damping"),
        (lambda: RandomGate({1: 1.5}), "expected a share of tokens"),
        (lambda: RandomGate({1: math.nan}), "expected a share of tokens"),
        (lambda: EntropyGate((1,), math.nan), "expected an entropy in nats"),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_defaults_are_the_papers_and_the_layers_those_of_threshold_or_gate() -> None:
    policy = ALRR(FixedThreshold({5: 1.0, 3: 2.0}))
    assert (policy.blow_up, policy.max_passes, policy.growth, policy.damping) == (1.5, 1, 0.2, 1.0)
    assert policy.layers == (3, 5)
    assert GatedRecursion(RandomGate({7: 0.1, 6: 0.2})).layers == (6, 7)
    assert policy.kind == GatedRecursion(RandomGate({1: 1.0})).kind == "recursion"
