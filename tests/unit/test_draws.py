"""Counter-based draws: what they depend on, and that they are what they say."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from normprobe.policies.draws import keys, normal, uniform

CPU = torch.device("cpu")


def test_uniform_and_normal_have_their_distributions() -> None:
    n = 20_000
    key, step = keys([2**64 - 1 - i for i in range(n)], CPU), torch.arange(n) % 50
    drawn = uniform(key, 3, step, 0)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert kstest(drawn.numpy(), "uniform").pvalue > 1e-3
    assert kstest(normal(key[:400], 3, step[:400], 0, 50).flatten().numpy(), "norm").pvalue > 1e-3


@given(key=st.integers(0, 2**64 - 1), step=st.integers(0, 10**6), seed=st.integers(0, 2**63))
def test_a_draw_depends_on_each_of_its_parts_and_on_no_other_row(key: int, step: int, seed: int) -> None:
    mine, at = keys([key], CPU), torch.tensor([step])
    drawn = uniform(mine, 1, at, seed)
    company = uniform(keys([1, key, 7], CPU), 1, torch.tensor([9, step, 9]), seed)
    assert torch.equal(company[1:2], drawn)
    others = [
        uniform(keys([key ^ 1], CPU), 1, at, seed),
        uniform(mine, 2, at, seed),
        uniform(mine, 1, at + 1, seed),
        uniform(mine, 1, at, seed + 1),
        uniform(mine, 1, at, seed, stream=1),
    ]
    # One of five may collide in 24 bits; all do not.
    assert sum(torch.equal(drawn, other) for other in others) <= 1


def test_neighbouring_draws_are_not_correlated() -> None:
    step = torch.arange(20_000)
    drawn = uniform(keys([5], CPU).expand(20_000), 0, step, 0)
    again = uniform(keys([5], CPU).expand(20_000), 1, step, 0)
    assert abs(torch.corrcoef(torch.stack([drawn[:-1], drawn[1:]]))[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([drawn, again]))[0, 1]) < 0.03
