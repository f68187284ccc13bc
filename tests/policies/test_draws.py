"""Counter-based draws: what they depend on, and that they are what they say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from normprobe.policies.draws import keys, normal, request_key, uniform

CPU = torch.device("cpu")
unsigned = st.integers(0, 2**64 - 1)
layers = st.integers(0, 200)
steps = st.integers(0, 10**6)
streams = st.integers(0, 5)


def slow_hash(*parts: int) -> int:
    """The finaliser of SplitMix64, part after part, in Python's unbounded integers."""
    state, *rest = parts
    for part in rest:
        z = ((state ^ (part % 2**64)) + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        state = z ^ (z >> 31)
    return state


def slow_unit(state: int) -> float:
    return (state >> 40) / 2**24


def test_the_slow_hash_is_splitmix64() -> None:
    """The first numbers of the generator as published, seed 0: state n · γ, then the finaliser."""
    gamma = 0x9E3779B97F4A7C15
    assert [slow_hash(n * gamma, 0) for n in (0, 1)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@given(unsigned, layers, steps, st.integers(-(2**63), 2**64 - 1), streams)
def test_draws_equal_a_slow_implementation(key: int, layer: int, step: int, seed: int, stream: int) -> None:
    base = slow_hash(key, seed, layer, stream, step)
    drawn = uniform(keys([key], CPU), layer, torch.tensor([step]), seed, stream)
    assert drawn.tolist() == [slow_unit(base)]
    expected = [
        math.sqrt(-2 * math.log1p(-slow_unit(slow_hash(base, 2 * i + 1))))
        * math.cos(2 * math.pi * slow_unit(slow_hash(base, 2 * i + 2)))
        for i in range(3)
    ]
    drawn = normal(keys([key], CPU), layer, torch.tensor([step]), seed, 3, stream)
    assert drawn[0].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_uniform_and_normal_have_their_distributions() -> None:
    n = 20_000
    key, step = keys([2**64 - 1 - i for i in range(n)], CPU), torch.arange(n) % 50
    drawn = uniform(key, 3, step, 0)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert kstest(drawn.numpy(), "uniform").pvalue > 1e-3
    assert kstest(normal(key[:400], 3, step[:400], 0, 50).flatten().numpy(), "norm").pvalue > 1e-3


def test_neighbouring_draws_are_not_correlated() -> None:
    """Next steps, next layers, next columns; 20,000 pairs, standard error 0.007."""
    n = 20_000
    key, step = keys([request_key("a")], CPU).expand(n), torch.arange(n)
    drawn = uniform(key, 0, step, 0)
    columns = normal(key, 0, step, 0, 2).T
    for pair in ((drawn[:-1], drawn[1:]), (drawn, uniform(key, 1, step, 0)), columns):
        assert abs(torch.corrcoef(torch.stack(tuple(pair)))[0, 1]) < 0.03


@given(key=unsigned, step=steps, seed=st.integers(0, 2**63))
def test_a_draw_depends_on_each_of_its_parts_and_on_no_other_row(key: int, step: int, seed: int) -> None:
    mine, at = keys([key], CPU), torch.tensor([step])
    drawn = uniform(mine, 1, at, seed)
    others, elsewhere = keys([1, key, 7], CPU), torch.tensor([9, step, 9])
    assert torch.equal(uniform(others, 1, elsewhere, seed)[1:2], drawn)
    assert torch.equal(normal(others, 1, elsewhere, seed, 5)[1:2], normal(mine, 1, at, seed, 5))
    changed = [
        uniform(keys([key ^ 1], CPU), 1, at, seed),
        uniform(mine, 2, at, seed),
        uniform(mine, 1, at + 1, seed),
        uniform(mine, 1, at, seed + 1),
        uniform(mine, 1, at, seed, stream=1),
    ]
    # One of five may collide in 24 bits; all do not.
    assert sum(torch.equal(drawn, other) for other in changed) <= 1


def test_keys_keep_the_64_bits_of_a_request() -> None:
    numbers = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, request_key("some request")]
    assert [key % 2**64 for key in keys(numbers, CPU).tolist()] == numbers
