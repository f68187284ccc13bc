"""The late share of a curve: even, late, early, up and down; what noise and a curve that hardly moves have of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from normprobe.claims.measure.sharpness import late_share

LATE = [6, 7]
CURVES = arrays(np.float64, (3, 8), elements=st.floats(-5, 5))


def share(*curve: float) -> float:
    return float(late_share(np.array([curve], dtype=float), LATE, 0.05)[0])


def test_known_curves():
    assert share(*range(8)) == pytest.approx(2 / 7)
    assert share(0, 0, 0, 0, 0, 0, 1, 1) == 1
    assert share(0, 1, 1, 1, 1, 1, 1, 1) == 0
    assert share(1, 1, 1, 1, 1, 1, 1, 0) == -1
    assert share(0, 1, 0, 0, 0, 0, 0, 1) == pytest.approx(1 / 3)
    assert share(0, 0, 0, 0, 0, 0, 0, 0.01) == pytest.approx(0.2)  # it hardly moves


@given(CURVES, st.floats(-3, 3), st.floats(0.1, 10))
def test_it_lies_between_minus_one_and_one_and_knows_no_level_sign_or_scale(curve, level, scale):
    found = late_share(curve, LATE, 1e-9)
    assert (np.abs(found) <= 1 + 1e-9).all()
    np.testing.assert_allclose(late_share(curve + level, LATE, 1e-9), found, atol=1e-5)
    np.testing.assert_allclose(late_share(-curve, LATE, 1e-9), -found)
    moved = np.abs(np.diff(curve, axis=1)).sum(axis=1) > 1e-6
    np.testing.assert_allclose(late_share(scale * curve, LATE, 1e-9)[moved], found[moved])


def test_noise_has_no_late_share_where_the_largest_steps_have_most_of_the_rise():
    noise = np.random.default_rng(0).normal(size=(2000, 12))
    assert abs(late_share(noise, [9, 10, 11], 0.05).mean()) < 0.02
    rises = np.maximum(np.diff(noise, axis=1), 0)
    assert (np.sort(rises, axis=1)[:, -2:].sum(axis=1) / rises.sum(axis=1)).mean() > 0.5
