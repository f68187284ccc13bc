"""Matched random suppression: what the doses keep, and what a replay removes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_fixture import REQUESTS, apply, random_rows, seeds

from normprobe.errors import NormprobeError
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.policies.rows import Rows, norms


def random_doses(seed: int, n_slots: int = 5, n_steps: int = 7) -> Doses:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, n_steps + 1, (n_slots,), generator=generator)
    delta = torch.rand(n_slots, n_steps, 2, generator=generator)
    delta = torch.where(torch.rand(delta.shape, generator=generator) < 0.3, delta, 0.0)
    delta[torch.arange(n_steps) >= lengths[:, None]] = 0.0
    return Doses(delta, lengths, (1, 2), tuple(REQUESTS[:n_slots]))


@settings(deadline=None)
@given(seeds)
def test_shuffled_doses_keep_every_count_and_size_of_a_request(seed: int) -> None:
    doses = random_doses(seed)
    shuffled = doses.shuffled(seed)
    for slot, n in enumerate(doses.n_steps.tolist()):
        # The tokens' dose vectors over the layers are the same multiset.
        assert sorted(shuffled.delta[slot, :n].tolist()) == sorted(doses.delta[slot, :n].tolist())
        assert not shuffled.delta[slot, n:].any()
    assert torch.equal(doses.shuffled(seed).delta, shuffled.delta)


@settings(deadline=None)
@given(seeds, st.integers(1, 5))
def test_grouped_doses_stay_in_their_group(seed: int, n_groups: int) -> None:
    doses = random_doses(seed)
    groups = torch.randint(n_groups, doses.delta.shape[:2], generator=torch.Generator().manual_seed(seed))
    shuffled = doses.shuffled(seed, groups)
    for slot, n in enumerate(doses.n_steps.tolist()):
        for group in range(n_groups):
            member = groups[slot, :n] == group
            dealt, taken = (d.delta[slot, :n][member].tolist() for d in (shuffled, doses))
            assert sorted(dealt) == sorted(taken)
        assert not shuffled.delta[slot, n:].any()
    if n_groups == 1:
        assert torch.equal(shuffled.delta, doses.shuffled(seed).delta)


def test_groups_of_one_keep_their_doses_and_groups_of_two_deal_by_halves() -> None:
    """2,000 requests with one dose in a group of two: it moves in 1,000 ± 100 (4.5 standard deviations)."""
    delta = torch.zeros(2000, 3, 1)
    delta[:, 0] = 1.0
    doses = Doses(delta, torch.full((2000,), 3), (0,), tuple(str(i) for i in range(2000)))
    alone = doses.shuffled(0, torch.tensor([0, 1, 1]).expand(2000, 3))
    assert torch.equal(alone.delta, delta)
    paired = doses.shuffled(0, torch.tensor([0, 1, 0]).expand(2000, 3))
    assert not paired.delta[:, 1].any()
    assert abs(int(paired.delta[:, 2].sum()) - 1000) < 100


def test_the_share_on_the_same_tokens_counts_tokens() -> None:
    """Layers do not matter, sizes neither; a request without doses has no share."""
    here = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], [[0.0, 0.0]] * 3])
    there = torch.tensor([[[0.0, 5.0], [0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0]] * 3])
    mine, other = (Doses(delta, torch.tensor([3, 3]), (4, 5), ("a", "b")) for delta in (here, there))
    share = mine.share_on_tokens_of(other)
    assert float(share[0]) == 0.5
    assert share[1].isnan()


def test_the_shuffle_depends_on_seed_and_request_alone() -> None:
    delta = torch.arange(1.0, 41.0)[None, :, None].repeat(3, 1, 1)
    doses = Doses(delta, torch.full((3,), 40), (0,), ("a", "b", "c"))
    first = doses.shuffled(1).delta
    assert torch.equal(replace(doses, requests=("c", "x", "a")).shuffled(1).delta[2], first[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(doses.shuffled(2).delta, first)


def test_random_doses_fall_on_every_step_alike() -> None:
    """One dose in ten steps, dealt 2,000 times: each step gets 200 ± 60 (4.5 standard deviations)."""
    delta = torch.zeros(2000, 10, 1)
    delta[:, 0] = 1.0
    names = tuple(str(i) for i in range(2000))
    doses = Doses(delta, torch.full((2000,), 10), (0,), names).shuffled(0)
    counts = doses.delta[:, :, 0].sum(0)
    assert ((counts - 200).abs() < 60).all()


@settings(deadline=None)
@given(seeds)
def test_a_replay_takes_off_its_dose_exactly_along_the_state(seed: int) -> None:
    rows, doses = random_rows(seed), random_doses(seed)
    hidden, chosen = apply(ReplayedSuppression(doses), rows, 2)
    for i in range(len(rows.hidden)):
        slot, step = int(rows.slot[i]), int(rows.step[i])
        dose = float(doses.delta[slot, step % int(doses.n_steps[slot]), 1]) if step >= 0 else 0.0
        assert bool(chosen[i]) == (dose > 0)
        state, length = rows.hidden[i], float(rows.hidden[i].norm())
        expected = state * max(1 - dose / length, -1)
        torch.testing.assert_close(hidden[i], expected, rtol=1e-5, atol=1e-6)
        assert float((hidden[i] - state).norm()) == pytest.approx(min(dose, 2 * length), rel=1e-4, abs=1e-5)
    assert (norms(hidden) <= norms(rows.hidden) * (1 + 1e-6)).all()


def test_a_replay_with_a_factor_scales_where_there_is_a_dose() -> None:
    rows, doses = random_rows(0), random_doses(0)
    hidden, chosen = apply(ReplayedSuppression(doses, 0.1), rows, 1)
    assert chosen.any()
    torch.testing.assert_close(hidden[chosen], 0.1 * rows.hidden[chosen])
    assert torch.equal(hidden[~chosen], rows.hidden[~chosen])


def test_a_zero_state_stays_zero() -> None:
    doses = Doses(torch.ones(1, 1, 1), torch.tensor([1]), (0,), ("a",))
    rows = Rows(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([0]))
    assert torch.equal(apply(ReplayedSuppression(doses), rows, 0, ["a"])[0], rows.hidden)
    with pytest.raises(NormprobeError, match="requests that have doses, got b"):
        apply(ReplayedSuppression(doses), rows, 0, ["b"])
