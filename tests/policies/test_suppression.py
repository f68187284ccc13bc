"""Suppression and its matched controls, as maths on rows."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.policies.controls.direction_only import DirectionOnly
from normprobe.policies.controls.low_norm import LowNormSuppression
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.policies.controls.rotation import Rotation
from normprobe.policies.ops import turn
from normprobe.policies.policy import Policy
from normprobe.policies.rows import Rows, norms
from normprobe.policies.suppression import Clamp, Suppression
from normprobe.policies.threshold import BINS, AdaptiveThreshold, FixedThreshold

seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
REQUESTS = [f"request {slot}" for slot in range(5)]


def never(active: torch.Tensor, states: torch.Tensor) -> None:
    """No policy here asks for an extra pass."""
    raise AssertionError


def apply(
    policy: Policy, rows: Rows, layer: int, requests: Sequence[str] = REQUESTS
) -> tuple[torch.Tensor, torch.Tensor]:
    """The new states and where they were changed, slot i being requests[i]."""
    running = policy.start(len(requests), rows.hidden.shape[1], torch.device("cpu"))
    running.reset(range(len(requests)), requests)
    change = running.apply(rows, layer, never)
    assert change.passes is None
    return change.hidden, change.triggered


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
    return Doses(delta, lengths, (1, 2), tuple(REQUESTS[:n_slots]))


def adaptive(layer: int) -> AdaptiveThreshold:
    """A threshold whose prior knows norms from 0.1 to 100, all sizes alike, and fades fast."""
    return AdaptiveThreshold((layer,), (0.1,), (100.0,), ((1 / BINS,) * BINS,), prior_tokens=1.0)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0, 1))
def test_exactly_the_eligible_norms_above_the_threshold_shrink(
    seed: int, threshold: float, scale: float
) -> None:
    rows = random_rows(seed)
    hidden, chosen = apply(Suppression(FixedThreshold({3: threshold}), scale), rows, 3)
    for i in range(len(rows.hidden)):
        wanted = rows.step[i] >= 0 and rows.hidden[i].norm() > threshold
        assert bool(chosen[i]) == bool(wanted)
        torch.testing.assert_close(hidden[i], rows.hidden[i] * (scale if wanted else 1.0), rtol=0, atol=0)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0, 1))
def test_a_clamp_leaves_the_same_states_at_a_fraction_of_the_threshold(
    seed: int, threshold: float, fraction: float
) -> None:
    rows = random_rows(seed)
    hidden, chosen = apply(Clamp(FixedThreshold({3: threshold}), fraction), rows, 3)
    assert torch.equal(chosen, apply(Suppression(FixedThreshold({3: threshold})), rows, 3)[1])
    for i in range(len(rows.hidden)):
        state, length = rows.hidden[i], float(rows.hidden[i].norm())
        expected = state * (fraction * threshold / length) if chosen[i] else state
        torch.testing.assert_close(hidden[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [Suppression, Clamp])
def test_an_adaptive_suppression_follows_the_norms_of_its_own_request(make) -> None:
    """A norm of 5 is high for who had norms of 1, and not for who had norms of 20; norms before the change count."""
    running = make(adaptive(1)).start(2, 4, torch.device("cpu"))
    running.reset([0, 1], ["short", "long"])
    length = torch.tensor([[1.0], [20.0]])
    for step in range(50):
        noise = 1 + 0.1 * torch.sin(torch.tensor(float(step)))
        running.apply(
            Rows(length * noise * torch.ones(2, 4) / 2, torch.arange(2), torch.full((2,), step)), 1, never
        )
        running.finish()
    rows = Rows(torch.full((2, 4), 2.5), torch.arange(2), torch.full((2,), 50))
    assert running.apply(rows, 1, never).triggered.tolist() == [True, False]
    running.finish()
    running.reset([0], ["new"])
    assert not running.apply(rows, 1, never).triggered.any()


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20))
def test_below_and_above_part_the_eligible_rows(seed: int, threshold: float) -> None:
    rows = random_rows(seed)
    _, high = apply(Suppression(FixedThreshold({0: threshold})), rows, 0)
    _, low = apply(LowNormSuppression({0: threshold}), rows, 0)
    assert not (high & low).any()
    assert torch.equal(high | low, rows.eligible)  # no drawn norm equals the threshold


@settings(deadline=None)
@given(seeds, dtypes)
def test_scale_one_and_infinite_threshold_change_no_bit(seed: int, dtype: torch.dtype) -> None:
    rows = random_rows(seed, dtype=dtype)
    assert torch.equal(apply(Suppression(FixedThreshold({0: 0.5}), scale=1.0), rows, 0)[0], rows.hidden)
    hidden, chosen = apply(Suppression(FixedThreshold({0: math.inf})), rows, 0)
    assert torch.equal(hidden, rows.hidden)
    assert not chosen.any()


@settings(deadline=None)
@given(seeds, st.integers(1, 40), dtypes)
def test_a_row_gets_the_same_bits_whatever_its_batch_mates(seed: int, n: int, dtype: torch.dtype) -> None:
    rows = random_rows(seed, dtype=dtype)
    order = torch.randperm(len(rows.hidden), generator=torch.Generator().manual_seed(seed))[:n]
    some = Rows(rows.hidden[order], rows.slot[order], rows.step[order])
    doses, tau, learning = random_doses(seed), FixedThreshold({1: 2.0}), adaptive(1)
    for policy in (
        Suppression(tau),
        LowNormSuppression({1: 2.0}),
        Rotation(tau, seed),
        DirectionOnly(tau, {1: 1.5}),
        Suppression(learning),
        Clamp(learning),
        ReplayedSuppression(doses),
        ReplayedSuppression(doses, 0.1),
    ):
        whole_hidden, whole_chosen = apply(policy, rows, 1)
        part_hidden, part_chosen = apply(policy, some, 1)
        assert torch.equal(part_hidden, whole_hidden[order])
        assert torch.equal(part_chosen, whole_chosen[order])


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


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0, 1), st.sampled_from([2, 8, 200]))
def test_a_rotation_keeps_the_norm_and_moves_as_far_as_the_suppression(
    seed: int, threshold: float, scale: float, d: int
) -> None:
    rows = random_rows(seed, d=d)
    tau = FixedThreshold({3: threshold})
    shortened, wanted = apply(Suppression(tau, scale), rows, 3)
    hidden, chosen = apply(Rotation(tau, seed, scale), rows, 3)
    assert torch.equal(chosen, wanted)
    assert torch.equal(hidden[~chosen], rows.hidden[~chosen])
    torch.testing.assert_close(norms(hidden), norms(rows.hidden), rtol=1e-5, atol=0)
    distance = norms(hidden - rows.hidden)
    torch.testing.assert_close(distance, norms(shortened - rows.hidden), rtol=1e-5, atol=1e-5)


def test_the_rotation_depends_on_seed_request_layer_and_step_alone() -> None:
    hidden = torch.ones(4, 6)
    rows = Rows(hidden, torch.tensor([0, 1, 0, 0]), torch.tensor([2, 2, 3, 2]))
    tau = FixedThreshold({1: 1.0, 2: 1.0})
    turned, _ = apply(Rotation(tau, 7), rows, 1, ["a", "b"])
    assert torch.equal(turned[0], turned[3])
    others = [
        turned[1],
        turned[2],
        apply(Rotation(tau, 7), rows, 2, ["a", "b"])[0][0],
        apply(Rotation(tau, 8), rows, 1, ["a", "b"])[0][0],
    ]
    assert all(float((other - turned[0]).norm()) > 0.1 for other in others)
    moved = Rows(hidden, torch.tensor([1, 0, 1, 1]), rows.step)
    assert torch.equal(apply(Rotation(tau, 7), moved, 1, ["b", "a"])[0], turned)


def test_rotations_have_no_preferred_direction() -> None:
    """The mean of 4,000 turns in 20 dimensions points along h: across it each coordinate is 0 ± 4.5 standard errors."""
    d, n = 20, 4000
    hidden = torch.zeros(n, d)
    hidden[:, 0] = 1.0
    rows = Rows(hidden, torch.zeros(n, dtype=torch.long), torch.arange(n))
    turned, _ = apply(Rotation(FixedThreshold({0: 0.5}), 0), rows, 0, ["a"])
    mean, error = turned.mean(0), (1 - 0.595**2) ** 0.5 / (d - 1) ** 0.5 / n**0.5
    assert float(mean[0]) == pytest.approx(1 - 0.9**2 / 2)  # cos of a chord of 0.9
    assert (mean[1:].abs() < 4.5 * error).all()


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0.01, 100))
def test_direction_only_keeps_the_direction_and_sets_the_norm(
    seed: int, threshold: float, ordinary: float
) -> None:
    rows = random_rows(seed)
    tau = FixedThreshold({3: threshold})
    hidden, chosen = apply(DirectionOnly(tau, {3: ordinary}), rows, 3)
    assert torch.equal(chosen, apply(Suppression(tau), rows, 3)[1])
    assert torch.equal(hidden[~chosen], rows.hidden[~chosen])
    cosine = torch.nn.functional.cosine_similarity(hidden, rows.hidden)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        norms(hidden)[chosen], torch.full((int(chosen.sum()),), ordinary), rtol=1e-5, atol=0
    )


def test_a_zero_state_has_no_direction_and_stays() -> None:
    rows = Rows(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([0]))
    tau = FixedThreshold({0: 1.0})
    for policy in (Rotation(tau, 0), DirectionOnly(tau, {0: 2.0})):
        hidden, chosen = apply(policy, rows, 0, ["a"])
        assert not chosen.any()
        assert torch.equal(hidden, rows.hidden)
    assert torch.equal(turn(rows.hidden, torch.ones(1, 4), torch.ones(1, 1)), rows.hidden)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Suppression(FixedThreshold({2: 0.0})), r"expected τ > 0 for layer 2, got 0\.0"),
        (lambda: Suppression(FixedThreshold({2: math.nan})), r"expected τ > 0 for layer 2, got nan"),
        (lambda: LowNormSuppression({2: math.nan}), r"expected a norm bound above 0 for layer 2"),
        (lambda: Suppression(FixedThreshold({})), r"at least one layer, got none"),
        (lambda: Suppression(FixedThreshold({2: 1.0}), scale=-0.5), r"factor in \[0, 1\], got -0\.5"),
        (lambda: Suppression(adaptive(2), math.nan), r"factor in \[0, 1\], got nan"),
        (lambda: ReplayedSuppression(random_doses(0), 1.5), r"factor in \[0, 1\], got 1\.5"),
        (lambda: Clamp(adaptive(2), 1.5), r"fraction of τ in \[0, 1\], got 1\.5"),
        (
            lambda: DirectionOnly(FixedThreshold({2: 1.0}), {1: 1.0}),
            r"ordinary norm .* layer 2, got None",
        ),
        (
            lambda: DirectionOnly(FixedThreshold({2: 1.0}), {2: 0.0}),
            r"ordinary norm .* layer 2, got 0\.0",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
