"""ERSS against a slow implementation written from the paper, for several requests that come and go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.policies.draws import keys, request_key, uniform
from normprobe.policies.erss import DIRECTIONS, ERSS
from normprobe.policies.policy import RunningPolicy
from normprobe.policies.rows import Rows, norms
from normprobe.policies.threshold import FixedThreshold

CPU = torch.device("cpu")
TAU = 3.0
NAMES = ("a", "b", "c")


def never(active: torch.Tensor, states: torch.Tensor) -> None:
    """No policy here asks for an extra pass."""
    raise AssertionError


def slow(
    policy: ERSS, name: str, layer: int, tau: float, states: list[tuple[int, torch.Tensor]]
) -> list[torch.Tensor | None]:
    """What each state (with its step) becomes, None where nothing is mixed in: lists and loops."""
    bank: list[torch.Tensor] = []
    low, since, out = 0, policy.cooldown, []
    for step, h in states:
        above = float(h.norm()) > tau
        low = 0 if above else low + 1
        due = above if policy.trigger == "at_peaks" else low >= policy.streak
        chance = float(uniform(keys([request_key(name)], CPU), layer, torch.tensor([step]), policy.seed))
        cosines = [float(h @ v / (h.norm() * v.norm())) for v in bank]
        acts = (
            due
            and since >= policy.cooldown
            and chance < policy.probability
            and bool(bank)
            and max(cosines) >= policy.min_cosine
        )
        out.append((1 - policy.beta) * h + policy.beta * bank[int(np.argmax(cosines))] if acts else None)
        since = 0 if acts else since + 1
        if above:
            bank = sorted([*bank, h], key=lambda v: -float(v.norm()))[: policy.bank_size]
    return out


def run(
    running: RunningPolicy, slot: list[int], states: torch.Tensor, start: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feeds states [step, row, d]; returns the new states and where they were changed."""
    hidden, triggered = [], []
    for step, row in enumerate(states, start):
        change = running.apply(Rows(row, torch.tensor(slot), torch.full((len(slot),), step)), 1, never)
        running.finish()
        hidden.append(change.hidden)
        triggered.append(change.triggered)
    return torch.stack(hidden), torch.stack(triggered)


def drawn(seed: int, n: int, rows: int, d: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, rows, d, generator=generator) * 2


Told = tuple[int, torch.Tensor, torch.Tensor, bool]
"""Step, the state that came, what it became, whether the policy acted."""


def serve(policy: ERSS, seed: int, n_passes: int) -> dict[tuple[str, int], list[Told]]:
    """What requests that come and go in three slots get, by request and layer.

    Each pass holds some of the slots in some order, a row of padding, prompt rows of the slots that rest, and in three
    passes of four the second layer too.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    running = policy.start(3, 4, CPU)
    tenants, steps, told, born = [""] * 3, [0] * 3, {}, 0
    for _ in range(n_passes):
        for slot in range(3):
            if not tenants[slot] or rng.random() < 0.03:
                tenants[slot], steps[slot], born = f"request {born}", 0, born + 1
                running.reset([slot], [tenants[slot]])
        slots = [int(slot) for slot in rng.permutation(3)]
        awake = [bool(rng.random() < 0.8) for _ in slots]
        rows = torch.tensor([-1, *slots])
        step = torch.tensor(
            [-1, *(steps[slot] if here else -2 for slot, here in zip(slots, awake, strict=True))]
        )
        for layer in policy.layers[: 2 if rng.random() < 0.75 else 1]:
            hidden = torch.randn(4, 4, generator=generator) * 2
            change = running.apply(Rows(hidden, rows, step), layer, never)
            for row in range(4):
                if row == 0 or not awake[row - 1]:
                    assert not change.triggered[row]
                    assert torch.equal(change.hidden[row], hidden[row])
                else:
                    story = told.setdefault((tenants[slots[row - 1]], layer), [])
                    acted = bool(change.triggered[row])
                    story.append((int(step[row]), hidden[row], change.hidden[row], acted))
        running.finish()
        for slot, here in zip(slots, awake, strict=True):
            steps[slot] += here
    return told


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    trigger=st.sampled_from(["at_peaks", "low_streak"]),
    probability=st.sampled_from([0.4, 1.0]),
    cooldown=st.integers(0, 5),
)
def test_it_does_what_the_paper_says(seed: int, trigger: str, probability: float, cooldown: int) -> None:
    tau = {1: 4.0, 4: 4.5}
    policy = ERSS(FixedThreshold(tau), trigger, 3, probability, cooldown, 0.3, 0.4, bank_size=2, seed=seed)
    for (name, layer), story in serve(policy, seed, 60).items():
        expected = slow(policy, name, layer, tau[layer], [(step, state) for step, state, _, _ in story])
        assert [acted for _, _, _, acted in story] == [new is not None for new in expected]
        for (_, state, became, _), new in zip(story, expected, strict=True):
            if new is None:
                assert torch.equal(became, state)
            else:
                torch.testing.assert_close(became, new)


@pytest.mark.parametrize("trigger", ["at_peaks", "low_streak"])
def test_it_acts_in_these_tests(trigger: str) -> None:
    """The comparison above is not one of nothing with nothing."""
    policy = ERSS(FixedThreshold({1: 4.0, 4: 4.5}), trigger, 3, 0.4, 2, 0.3, bank_size=2)
    told = serve(policy, 0, 300)
    assert len({name for name, _ in told}) > 10
    for layer in policy.layers:
        acted = [acted for (_, at), story in told.items() if at == layer for *_, acted in story]
        assert 5 < sum(acted) < len(acted) / 2


def test_a_cooldown_shorter_than_the_streak_binds() -> None:
    """One peak, then low tokens alike: the first injection ends the streak of 5, the others come 3 tokens apart."""
    policy = ERSS(FixedThreshold({1: TAU}), "low_streak", streak=5, probability=1.0, cooldown=2)
    running = policy.start(1, 4, CPU)
    running.reset([0], ["a"])
    states = torch.ones(20, 1, 4)
    states[0] *= 2
    _, triggered = run(running, [0], states)
    assert triggered[:, 0].nonzero()[:, 0].tolist() == [5, 8, 11, 14, 17]


def test_draws_belong_to_the_request_and_not_to_its_slot() -> None:
    policy = ERSS(FixedThreshold({1: TAU}), probability=0.5, cooldown=0, min_cosine=-1.0)
    states = drawn(5, 60, 1).expand(60, 3, 4)
    found = []
    for names in (("a", "b", "c"), ("b", "c", "a")):
        running = policy.start(3, 4, CPU)
        running.reset([0, 1, 2], names)
        _, triggered = run(running, [0, 1, 2], states)
        found.append(dict(zip(names, triggered.T.tolist(), strict=True)))
    assert found[0] == found[1]
    assert found[0]["a"] != found[0]["b"]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_company_and_earlier_tenants_do_not_matter(direction: str, dtype: torch.dtype) -> None:
    policy = ERSS(
        FixedThreshold({1: TAU}),
        probability=0.5,
        cooldown=1,
        min_cosine=-1.0,
        bank_size=3,
        direction=direction,
    )
    states = drawn(1, 60, 3).to(dtype)
    together, alone = policy.start(3, 4, CPU), policy.start(3, 4, CPU)
    together.reset([0, 1, 2], ["x", "y", "z"])
    run(together, [0, 1, 2], drawn(2, 30, 3).to(dtype))  # earlier requests in the same slots
    together.reset([0, 1, 2], NAMES)
    alone.reset([2], ["b"])
    whole, acted = run(together, [0, 1, 2], states)
    part, mine = run(alone, [2], states[:, 1:2])
    assert torch.equal(mine[:, 0], acted[:, 1])
    assert torch.equal(part[:, 0], whole[:, 1])
    assert acted.any()


def test_the_baselines_act_on_the_same_tokens_and_do_what_they_say() -> None:
    policy = ERSS(FixedThreshold({1: TAU}), probability=1.0, cooldown=0, min_cosine=-1.0, bank_size=8)
    states = drawn(3, 60, 1, d=16)
    found = {}
    for direction in DIRECTIONS:
        running = replace(policy, direction=direction).start(1, 16, CPU)
        running.reset([0], ["a"])
        hidden, triggered = run(running, [0], states)
        found[direction] = hidden[:, 0]
        assert torch.equal(triggered, found.setdefault("where", triggered))
    where, before = found["where"][:, 0], states[:, 0]
    assert where.sum() > 10
    torch.testing.assert_close(norms(found["scaled"]), norms(found["nearest"]))
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(found["scaled"], before), torch.ones(60))
    torch.testing.assert_close(norms(found["rotated"]), norms(before))
    torch.testing.assert_close(
        cosine(found["rotated"], before), cosine(found["nearest"], before), rtol=1e-3, atol=1e-3
    )
    assert not torch.equal(found["random_bank"][where], found["nearest"][where])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype, bits", [(torch.float32, torch.int32), (torch.bfloat16, torch.int16)])
def test_beta_zero_changes_no_bit(direction: str, dtype: torch.dtype, bits: torch.dtype) -> None:
    policy = ERSS(
        FixedThreshold({1: TAU}),
        beta=0.0,
        probability=1.0,
        cooldown=0,
        min_cosine=-1.0,
        direction=direction,
    )
    running = policy.start(1, 4, CPU)
    running.reset([0], ["a"])
    states = drawn(4, 30, 1).to(dtype)
    states[..., 0] = -0.0
    hidden, triggered = run(running, [0], states)
    assert triggered.any()
    assert torch.equal(hidden.view(bits), states.view(bits))


def test_padding_and_prompt_do_nothing() -> None:
    policy = ERSS(FixedThreshold({1: TAU}), probability=1.0, cooldown=0, min_cosine=-1.0)
    running = policy.start(1, 4, CPU)
    running.reset([0], ["a"])
    run(running, [0], drawn(4, 30, 1))
    rows = Rows(torch.full((2, 4), 9.0), torch.tensor([-1, 0]), torch.tensor([-1, -1]))
    change = running.apply(rows, 1, never)
    running.finish()
    assert not change.triggered.any()
    assert torch.equal(change.hidden, rows.hidden)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"bank_size": 0}, "bank_size ≥ 1"),
        ({"beta": 1.5}, r"beta in \[0, 1\]"),
        ({"probability": float("nan")}, r"probability in \[0, 1\]"),
        ({"streak": 0}, "streak ≥ 1"),
        ({"trigger": "often"}, "trigger among at_peaks, low_streak, got often"),
        ({"direction": "up"}, "direction among nearest"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings: dict, message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        ERSS(FixedThreshold({1: 1.0}), **settings)
