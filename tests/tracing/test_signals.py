"""Signals against slow obvious references in Python floats, and what must hold for any state."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from normprobe.tracing import signals

SCALE_FREE = [signals.entropy_rms, signals.entropy_energy]
FORMS = [signals.entropy_softmax, *SCALE_FREE]

floats = st.floats(-30, 30, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
states = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 24)), elements=floats)
scales = st.floats(1e-2, 1e2)


def entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def softmax(x: list[float]) -> list[float]:
    total = sum(math.exp(value - max(x)) for value in x)
    return [math.exp(value - max(x)) / total for value in x]


def length(h: list[float]) -> float:
    return math.sqrt(sum(x * x for x in h))


REFERENCES = {
    signals.norm: length,
    signals.entropy_softmax: lambda h: entropy(softmax(h)),
    signals.entropy_rms: lambda h: entropy(softmax([math.sqrt(len(h)) * x / length(h) for x in h])),
    signals.entropy_energy: lambda h: entropy([(x / length(h)) ** 2 for x in h]),
}


@pytest.mark.parametrize("signal", REFERENCES, ids=lambda signal: signal.__name__)
@pytest.mark.parametrize("scale", [0.01, 1, 40])
def test_a_signal_is_what_its_formula_says(signal, scale):
    h = scale * torch.randn(3, 5, 17, generator=torch.Generator().manual_seed(0))
    expected = [[REFERENCES[signal](token) for token in row] for row in h.double().tolist()]
    torch.testing.assert_close(signal(h), torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@given(h=states)
def test_hidden_entropies_lie_between_zero_and_log_d(form, h):
    values = form(torch.from_numpy(h))
    assert (values >= -1e-6).all()
    assert (values <= math.log(h.shape[-1]) + 1e-5).all()


@pytest.mark.parametrize("form", SCALE_FREE, ids=lambda form: form.__name__)
@given(h=states, scale=scales)
def test_two_forms_are_free_of_scale(form, h, scale):
    state = torch.from_numpy(h)
    torch.testing.assert_close(form(scale * state), form(state), rtol=1e-3, atol=1e-4)


@given(h=states, scale=scales)
def test_the_norm_carries_the_scale(h, scale):
    state = torch.from_numpy(h)
    torch.testing.assert_close(signals.norm(scale * state), scale * signals.norm(state), rtol=1e-4, atol=1e-6)


@given(h=states, scales=st.tuples(scales, scales))
def test_the_softmax_form_falls_with_scale(h, scales):
    small, large = sorted(scales)
    state = torch.from_numpy(h)
    assert (signals.entropy_softmax(large * state) <= signals.entropy_softmax(small * state) + 1e-4).all()


@given(h=states, seed=st.integers(0, 99))
def test_hidden_entropies_ignore_the_order_of_coordinates(h, seed):
    state = torch.from_numpy(h)
    shuffled = state[:, torch.randperm(h.shape[-1], generator=torch.Generator().manual_seed(seed))]
    for form in FORMS:
        torch.testing.assert_close(form(shuffled), form(state), rtol=1e-4, atol=1e-4)


def test_extreme_states():
    even, spike, zero = torch.full((8,), -3.0), 1e4 * torch.eye(8)[2], torch.zeros(8)
    for form in FORMS:
        assert form(even).item() == pytest.approx(math.log(8), abs=1e-5)
    assert signals.entropy_softmax(spike).item() == 0
    assert signals.entropy_energy(spike).item() == 0
    assert signals.entropy_rms(zero).item() == pytest.approx(math.log(8), abs=1e-5)
    assert signals.entropy_energy(zero).item() == 0


def test_norms_of_half_precision_states_are_accumulated_in_float32():
    h = torch.full((4096,), 0.1, dtype=torch.bfloat16)
    assert signals.norm(h).dtype == torch.float32
    assert signals.norm(h).item() == pytest.approx(float(h[0]) * 64, rel=1e-5)
