"""Suppression and its matched random control, as maths on rows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.policies.rows import Rows, norms
from normprobe.policies.suppression import Doses, ReplayedSuppression, Suppression

seeds = st.integers(0, 2**31 - 1)


def random_rows(seed: int, n: int = 40, d: int = 8, dtype: torch.dtype = torch.float32) -> Rows:
    """Rows of 5 requests, steps from −3 on, norms that vary a lot."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=generator) * torch.randn(n, 1, generator=generator).exp()
    return Rows(hidden.to(dtype), torch.arange(n) % 5, torch.arange(n) // 5 - 3)


def random_doses(seed: int, n_slots: int = 5, n_steps: int = 7) -> Doses:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, n_steps + 1, (n_slots,), generator=generator)
    delta = torch.rand(n_slots, n_steps, 2, generator=generator)
    delta = torch.where(torch.rand(delta.shape, generator=generator) < 0.3, delta, 0.0)
    delta[torch.arange(n_steps) >= lengths[:, None]] = 0.0
    return Doses(delta, lengths, (1, 2))


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0, 1))
def test_exactly_the_eligible_norms_above_the_threshold_shrink(
    seed: int, threshold: float, scale: float
) -> None:
    rows = random_rows(seed)
    hidden, chosen = Suppression.above({3: threshold}, scale).apply(rows, 3)
    for i in range(len(rows.hidden)):
        wanted = rows.step[i] >= 0 and rows.hidden[i].norm() > threshold
        assert bool(chosen[i]) == bool(wanted)
        torch.testing.assert_close(hidden[i], rows.hidden[i] * (scale if wanted else 1.0), rtol=0, atol=0)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20))
def test_below_and_above_part_the_eligible_rows(seed: int, threshold: float) -> None:
    rows = random_rows(seed)
    _, high = Suppression.above({0: threshold}).apply(rows, 0)
    _, low = Suppression.below({0: threshold}).apply(rows, 0)
    assert not (high & low).any()
    assert torch.equal(high | low, rows.eligible)  # no drawn norm equals the threshold


@settings(deadline=None)
@given(seeds, st.sampled_from([torch.float32, torch.bfloat16]))
def test_scale_one_and_infinite_threshold_change_no_bit(seed: int, dtype: torch.dtype) -> None:
    rows = random_rows(seed, dtype=dtype)
    assert torch.equal(Suppression.above({0: 0.5}, scale=1.0).apply(rows, 0)[0], rows.hidden)
    hidden, chosen = Suppression.above({0: math.inf}).apply(rows, 0)
    assert torch.equal(hidden, rows.hidden)
    assert not chosen.any()


@settings(deadline=None)
@given(seeds)
def test_a_row_gets_the_same_bits_whatever_its_batch_mates(seed: int) -> None:
    rows = random_rows(seed)
    order = torch.randperm(len(rows.hidden), generator=torch.Generator().manual_seed(seed))[:17]
    some = Rows(rows.hidden[order], rows.slot[order], rows.step[order])
    doses = random_doses(seed)
    for policy in (Suppression.above({1: 2.0}), ReplayedSuppression(doses), ReplayedSuppression(doses, 0.1)):
        whole_hidden, whole_chosen = policy.apply(rows, 1)
        part_hidden, part_chosen = policy.apply(some, 1)
        assert torch.equal(part_hidden, whole_hidden[order])
        assert torch.equal(part_chosen, whole_chosen[order])


@settings(deadline=None)
@given(seeds)
def test_shuffled_doses_keep_every_count_and_size_of_a_request(seed: int) -> None:
    doses = random_doses(seed)
    requests = [f"request {slot}" for slot in range(5)]
    shuffled = doses.shuffled(requests, seed)
    for slot, n in enumerate(doses.n_steps.tolist()):
        # The tokens' dose vectors over the layers are the same multiset.
        assert sorted(shuffled.delta[slot, :n].tolist()) == sorted(doses.delta[slot, :n].tolist())
        assert not shuffled.delta[slot, n:].any()
    assert torch.equal(doses.shuffled(requests, seed).delta, shuffled.delta)


def test_the_shuffle_depends_on_seed_and_request_alone() -> None:
    delta = torch.arange(1.0, 41.0)[None, :, None].repeat(3, 1, 1)
    doses = Doses(delta, torch.full((3,), 40), (0,))
    first = doses.shuffled(["a", "b", "c"], 1).delta
    assert torch.equal(doses.shuffled(["c", "x", "a"], 1).delta[2], first[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(doses.shuffled(["a", "b", "c"], 2).delta, first)


def test_random_doses_fall_on_every_step_alike() -> None:
    """One dose in ten steps, dealt 2,000 times: each step gets 200 ± 60 (4.5 standard deviations)."""
    delta = torch.zeros(2000, 10, 1)
    delta[:, 0] = 1.0
    doses = Doses(delta, torch.full((2000,), 10), (0,)).shuffled([str(i) for i in range(2000)], 0)
    counts = doses.delta[:, :, 0].sum(0)
    assert ((counts - 200).abs() < 60).all()


@settings(deadline=None)
@given(seeds)
def test_a_replay_takes_off_its_dose_exactly_along_the_state(seed: int) -> None:
    rows, doses = random_rows(seed), random_doses(seed)
    hidden, chosen = ReplayedSuppression(doses).apply(rows, 2)
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
    hidden, chosen = ReplayedSuppression(doses, 0.1).apply(rows, 1)
    assert chosen.any()
    torch.testing.assert_close(hidden[chosen], 0.1 * rows.hidden[chosen])
    assert torch.equal(hidden[~chosen], rows.hidden[~chosen])


def test_a_zero_state_stays_zero() -> None:
    doses = Doses(torch.ones(1, 1, 1), torch.tensor([1]), (0,))
    rows = Rows(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([0]))
    assert torch.equal(ReplayedSuppression(doses).apply(rows, 0)[0], rows.hidden)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Suppression.above({2: 0.0}), r"expected τ > 0 for layer 2, got 0\.0"),
        (lambda: Suppression.above({2: math.nan}), r"expected τ > 0 for layer 2, got nan"),
        (lambda: Suppression.below({2: math.nan}), r"expected norm bounds above 0 for layer 2"),
        (lambda: Suppression.above({}), r"at least one layer, got none"),
        (lambda: Suppression.above({2: 1.0}, scale=-0.5), r"factor in \[0, 1\], got -0\.5"),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
