"""Reasoning features: the paired test against scipy's, what is found and what is not, matching."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from normprobe.errors import NormprobeError
from normprobe.saes.features import PairedMoments, feature_sets, match, one_sided_p, paired_t

ACTIVATIONS = st.floats(0, 100, width=32)


def table(think, no_think, sizes=None):
    moments = PairedMoments(1, think.shape[1])
    moments.add(think[None], no_think[None])
    return moments.table([3], sizes)


@given(arrays(np.float64, (2, 7, 5), elements=ACTIVATIONS))
def test_p_is_that_of_the_one_sided_paired_t_test(pair):
    think, no_think = pair
    delta = think - no_think
    varies = delta.std(axis=0) > 1e-3 * np.abs(delta).max(axis=0, initial=1e-3)
    found = table(think, no_think)["p"].to_numpy()
    with np.errstate(all="ignore"):
        expected = stats.ttest_1samp(delta[:, varies], 0, alternative="greater").pvalue
    np.testing.assert_allclose(found[varies], expected, rtol=1e-6, atol=1e-12)


@given(arrays(np.float64, (2, 6, 4), elements=ACTIVATIONS), st.integers(1, 5))
def test_problems_may_come_in_any_portions(pair, cut):
    think, no_think = pair[:, None]
    whole, parts = PairedMoments(1, 4), PairedMoments(1, 4)
    whole.add(think, no_think)
    parts.add(think[:, :cut], no_think[:, :cut])
    parts.add(think[:, cut:], no_think[:, cut:])
    for column in ("mean_think", "mean_no_think", "delta"):
        np.testing.assert_allclose(whole.table([0])[column], parts.table([0])[column], atol=1e-12)


def test_planted_features_are_found_and_hardly_others():
    rng = np.random.default_rng(0)
    no_think = rng.exponential(size=(200, 400))
    think = rng.exponential(size=(200, 400))
    think[:, :40] += 1.0
    think[:, 40:60] *= 0.2
    found = table(think, no_think)
    selected = np.flatnonzero(found["selected"])
    assert set(range(40)) <= set(selected)
    assert len(selected) <= 48  # 5 % false discoveries, with room for chance
    assert not set(selected) & set(range(40, 60))
    np.testing.assert_allclose(found["q"], stats.false_discovery_control(found["p"]))


@pytest.mark.parametrize("value, p", [(0.0, 1.0), (-2.0, 1.0), (2.0, 0.0)])
def test_differences_that_do_not_vary(value, p):
    squares = np.array([9 * value**2])
    assert one_sided_p(paired_t(np.array([value]), squares, 9), 9) == [p]


def test_a_control_takes_as_many_features_as_it_is_asked_for_significant_or_not():
    rng = np.random.default_rng(0)
    think, no_think = rng.exponential(size=(2, 30, 50))
    assert not table(think, no_think)["selected"].any()
    found = table(think, no_think, [20])
    t = stats.ttest_rel(think, no_think).statistic
    assert set(np.flatnonzero(found["selected"])) == set(np.argsort(t)[-20:])
    assert found["matched"].sum() == 20
    assert table(think, no_think, [0])["selected"].sum() == 0


@given(arrays(np.float64, (2, 7, 9), elements=ACTIVATIONS), st.integers(0, 12))
def test_what_a_control_takes_has_the_largest_t_and_a_feature_that_never_fires_is_not_taken(pair, n):
    think, no_think = pair
    think[:, :2] = no_think[:, :2] = 0
    found = table(think, no_think, [n])
    t = paired_t(found["delta"].to_numpy(), np.square(think - no_think).sum(axis=0), 7)
    taken, known = found["selected"].to_numpy(), ~np.isnan(t)
    assert taken.sum() == min(n, known.sum())
    assert not taken[:2].any()
    if taken.any() and (known & ~taken).any():
        assert t[taken].min() >= t[known & ~taken].max() - 1e-6


def test_one_problem_is_too_few():
    with pytest.raises(NormprobeError, match=r"expected at least 2 problems .* got 1; give more"):
        table(np.ones((1, 3)), np.zeros((1, 3)))


@given(arrays(np.float64, 12, elements=ACTIVATIONS), arrays(np.bool_, 12))
def test_matches_are_others_each_taken_once(activation, selected):
    taken = match(activation, selected)
    assert len(taken) == min(selected.sum(), (~selected).sum()) == len(set(taken))
    assert not selected[taken].any()
    if len(taken):
        others = np.abs(activation[~selected] - activation[selected].max())
        assert np.abs(activation[taken[0]] - activation[selected].max()) == others.min()


def test_the_nearest_in_activation_is_matched():
    activation = np.array([5.0, 1.0, 4.6, 1.2, 0.0, 9.0])
    selected = np.array([True, True, False, False, False, False])
    assert match(activation, selected).tolist() == [2, 3]


@given(arrays(np.float64, (2, 8, 9), elements=ACTIVATIONS))
def test_sets_of_fixed_size_are_nested_and_rise(pair):
    features = table(*pair)
    sets = feature_sets(features, {"top2": 2, "top5": 5})
    small, large = sets["top2"][0], sets["top5"][0]
    assert (small <= large).all()
    assert small.sum() == min(2, (features["delta"] > 0).sum())
    assert (features["delta"].to_numpy()[large] > 0).all()
    if small.any():
        outside = (features["delta"] > 0).to_numpy() & ~small
        assert features["p"][small].max() <= features["p"][outside].min() or not outside.any()
    np.testing.assert_array_equal(sets["reasoning"][0], features["selected"])
    assert not (sets["reasoning"] & sets["matched"]).any()
