"""ERSS against a slow implementation written from the paper, for several requests that come and go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.policies.combined import Combined
from normprobe.policies.draws import keys, uniform
from normprobe.policies.probe import Probe
from normprobe.policies.recursion import Recursion
from normprobe.policies.rows import Acting, Rows, norms, request_key
from normprobe.policies.steering import Steering
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import FixedThreshold

CPU = torch.device("cpu")
TAU = 3.0
NAMES = ("a", "b", "c")


def never(active: torch.Tensor, states: torch.Tensor) -> None:
    """No policy here asks for an extra pass."""
    raise AssertionError


def slow(policy: Steering, name: str, states: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """What each state becomes, None where nothing is mixed in: lists and loops, one request, one layer."""
    bank: list[torch.Tensor] = []
    low, since, out = 0, policy.cooldown, []
    for step, h in enumerate(states):
        above = float(h.norm()) > TAU
        low = 0 if above else low + 1
        due = above if policy.trigger == "at_peaks" else low >= policy.streak
        chance = float(uniform(keys([request_key(name)], CPU), 1, torch.tensor([step]), policy.seed))
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
    acting: Acting, slot: list[int], states: torch.Tensor, start: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feeds states [step, row, d]; returns the new states and where they were changed."""
    hidden, triggered = [], []
    for step, row in enumerate(states, start):
        change = acting.apply(Rows(row, torch.tensor(slot), torch.full((len(slot),), step)), 1, never)
        acting.finish()
        hidden.append(change.hidden)
        triggered.append(change.triggered)
    return torch.stack(hidden), torch.stack(triggered)


def drawn(seed: int, n: int, rows: int, d: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, rows, d, generator=generator) * 2


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    trigger=st.sampled_from(["at_peaks", "low_streak"]),
    probability=st.sampled_from([0.4, 1.0]),
    cooldown=st.integers(0, 5),
)
def test_it_does_what_the_paper_says(seed: int, trigger: str, probability: float, cooldown: int) -> None:
    policy = Steering(
        FixedThreshold({1: TAU}), trigger, 3, probability, cooldown, 0.3, 0.4, bank_size=2, seed=seed
    )
    states = drawn(seed, 40, 3)
    acting = policy.start(3, 4, CPU)
    acting.reset([2, 0, 1], NAMES)
    hidden, triggered = run(acting, [2, 0, 1], states)
    for row, name in enumerate(NAMES):
        expected = slow(policy, name, list(states[:, row]))
        assert triggered[:, row].tolist() == [new is not None for new in expected]
        for step, new in enumerate(expected):
            torch.testing.assert_close(hidden[step, row], states[step, row] if new is None else new)


def test_it_acts_in_these_tests() -> None:
    """The comparison above is not one of nothing with nothing."""
    for trigger in ("at_peaks", "low_streak"):
        policy = Steering(FixedThreshold({1: TAU}), trigger, 3, 0.4, 2, 0.3, bank_size=2)
        acting = policy.start(3, 4, CPU)
        acting.reset([0, 1, 2], NAMES)
        _, triggered = run(acting, [0, 1, 2], drawn(0, 800, 3))
        assert triggered.any(dim=0).all()
        assert not triggered.all()


@pytest.mark.parametrize("direction", ["nearest", "random_bank", "scaled", "rotated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_company_and_earlier_tenants_do_not_matter(direction: str, dtype: torch.dtype) -> None:
    policy = Steering(
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
    policy = Steering(FixedThreshold({1: TAU}), probability=1.0, cooldown=0, min_cosine=-1.0, bank_size=8)
    states = drawn(3, 60, 1, d=16)
    found = {}
    for direction in ("nearest", "random_bank", "scaled", "rotated"):
        acting = replace(policy, direction=direction).start(1, 16, CPU)
        acting.reset([0], ["a"])
        hidden, triggered = run(acting, [0], states)
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


def test_beta_zero_changes_no_bit_and_padding_does_nothing() -> None:
    policy = Steering(FixedThreshold({1: TAU}), beta=0.0, probability=1.0, cooldown=0, min_cosine=-1.0)
    acting = policy.start(1, 4, CPU)
    acting.reset([0], ["a"])
    states = drawn(4, 30, 1)
    hidden, triggered = run(acting, [0], states)
    assert triggered.any()
    assert torch.equal(hidden, states)
    rows = Rows(torch.full((2, 4), 9.0), torch.tensor([-1, 0]), torch.tensor([-1, -1]))
    change = acting.apply(rows, 1, never)
    acting.finish()
    assert not change.triggered.any()
    assert torch.equal(change.hidden, rows.hidden)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"bank_size": 0}, "a bank of at least one state"),
        ({"beta": 1.5}, r"beta in \[0, 1\]"),
        ({"probability": float("nan")}, r"probability in \[0, 1\]"),
        ({"streak": 0}, "streak ≥ 1"),
        ({"trigger": "often"}, "trigger among at_peaks, low_streak, got often"),
        ({"direction": "up"}, "direction among nearest"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings: dict, message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        Steering(FixedThreshold({1: 1.0}), **settings)


def test_combined_policies_see_what_the_ones_before_left_and_conflicts_are_refused() -> None:
    threshold = FixedThreshold({1: TAU})
    both = Combined((Suppression.above({1: TAU}, 0.5), Probe(FixedThreshold({1: 1.0, 2: 1.0}))))
    assert both.layers == (1, 2)
    acting = both.start(1, 4, CPU)
    acting.reset([0], ["a"])
    change = acting.apply(Rows(torch.full((1, 4), 2.0), torch.tensor([0]), torch.tensor([0])), 1, never)
    acting.finish()
    torch.testing.assert_close(change.hidden, torch.full((1, 4), 1.0))
    assert float(acting.parts[1][1].summary([0]).total[0, 0]) == pytest.approx(2.0)
    Combined((Recursion(threshold), Steering(threshold)))
    Combined((Recursion(threshold), Recursion(FixedThreshold({2: 1.0}))))
    for pair in (
        (Recursion(threshold), Recursion(threshold)),
        (Suppression.above({1: 1.0}), Steering(threshold)),
    ):
        with pytest.raises(NormprobeError, match=r"do not conflict, got .* both at layers \[1\]"):
            Combined(pair)
    with pytest.raises(NormprobeError, match="at least one policy"):
        Combined(())
