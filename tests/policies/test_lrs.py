"""LRS scores and what is made of them, on cases worked out by hand and as laws."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.engines.base import probe_results, with_scores
from normprobe.errors import NormprobeError
from normprobe.policies.lrs import FORMS, choose, lrs_scores, rank, vote
from normprobe.policies.probe import BLOCKS, Probe, RunningProbe
from normprobe.policies.rows import Rows
from normprobe.policies.threshold import FixedThreshold

TAU = torch.tensor([2.0, 3.0])
scores = st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=8)
ballots = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.floats(0, 10)), min_size=1, max_size=9
)


def random_norms(seed: int, n_tokens: int) -> torch.Tensor:
    return torch.rand(2, n_tokens, generator=torch.Generator().manual_seed(seed)) * 6


def by_hand(norm: torch.Tensor) -> dict[str, float]:
    """The definitions, token by token."""
    n = norm.shape[1]
    wanted = dict.fromkeys(FORMS, 0.0)
    last_part, last_third = (min(n, max(1, round(share * n))) for share in (0.3, 1 / 3))
    for values, tau in zip(norm.tolist(), TAU.tolist(), strict=True):
        for token, value in enumerate(values):
            wanted["A"] += value
            wanted["B"] += max(0.0, value - tau)
            wanted["C"] += value > tau
            wanted["D"] += max(0.0, value - tau) if token >= n - last_part else 0.0
            wanted["last_third"] += value if token >= n - last_third else 0.0
    for form, count in zip(FORMS, (n, n, n, last_part, last_third), strict=True):
        wanted[f"{form}_per_token"] = wanted[form] / max(count, 1)
    return wanted


def test_a_case_worked_out_on_paper() -> None:
    # Ten tokens: the last 30 % and the last third are both three. Above τ: 4 in layer 0 (τ = 2), 5 and 4 in layer 1.
    norm = torch.tensor([[4.0, 1, 1, 1, 1, 1, 1, 1, 1, 2], [1.0, 1, 1, 5, 1, 1, 1, 1, 4, 1]])
    assert lrs_scores(norm, TAU) == pytest.approx(
        {
            "A": 31.0,
            "B": 2 + 2 + 1,
            "C": 3,
            "D": 1,
            "last_third": 4 + 6,
            "A_per_token": 3.1,
            "B_per_token": 0.5,
            "C_per_token": 0.3,
            "D_per_token": 1 / 3,
            "last_third_per_token": 10 / 3,
        }
    )


@given(st.integers(0, 2**31 - 1), st.integers(0, 40))
def test_scores_are_those_of_a_loop(seed: int, n_tokens: int) -> None:
    norm = random_norms(seed, n_tokens)
    assert lrs_scores(norm, TAU) == pytest.approx(by_hand(norm), rel=1e-5, abs=1e-5)


@given(st.integers(0, 2**31 - 1), st.integers(2, 6))
def test_sums_grow_with_length_and_rates_do_not(seed: int, times: int) -> None:
    """Thirty tokens, so that every last part is a whole number of tokens; each of them said several times."""
    norm = random_norms(seed, 30)
    short, long = lrs_scores(norm, TAU), lrs_scores(norm.repeat_interleave(times, dim=1), TAU)
    for form in FORMS:
        assert long[form] == pytest.approx(times * short[form], rel=1e-4)
        assert long[f"{form}_per_token"] == pytest.approx(short[f"{form}_per_token"], rel=1e-4)


@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.floats(0.1, 10))
def test_scores_follow_the_unit_of_the_norm(seed: int, n_tokens: int, unit: float) -> None:
    norm = random_norms(seed, n_tokens)
    before, after = lrs_scores(norm, TAU), lrs_scores(norm * unit, TAU * unit)
    for form in ("A", "B", "D", "last_third"):
        assert after[form] == pytest.approx(unit * before[form], rel=1e-4, abs=1e-4)


def probed(norm: torch.Tensor) -> dict[str, float]:
    probing = Probe(FixedThreshold({0: 2.0, 1: 3.0})).start(1, 1, torch.device("cpu"))
    assert isinstance(probing, RunningProbe)
    probing.reset([0], ["it"])
    slot = torch.tensor([0])
    for step in range(norm.shape[1]):
        for layer in (0, 1):
            rows = Rows(norm[layer, step].reshape(1, 1), slot, torch.tensor([step]))
            probing.apply(rows, layer, lambda active, states: None)
        probing.finish()
    (found,) = probe_results(probing.summary([0]))
    return with_scores(found)["scores"]


@pytest.mark.parametrize("n_tokens", [0, 1, 2, 3, 10, 50, BLOCKS - 1])
def test_a_probe_gives_the_scores_of_the_whole_series(n_tokens: int) -> None:
    norm = random_norms(n_tokens, n_tokens)
    assert probed(norm) == pytest.approx(lrs_scores(norm, TAU), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("n_tokens", [BLOCKS, 333, 1000])
def test_a_probe_of_a_long_response_is_close(n_tokens: int) -> None:
    norm = random_norms(n_tokens, n_tokens)
    found, wanted = probed(norm), lrs_scores(norm, TAU)
    for name, value in wanted.items():
        rough = name.startswith(("D", "last_third"))
        assert found[name] == pytest.approx(value, rel=0.02 if rough else 1e-5)


def test_choose_and_rank_take_the_first_of_equals_and_no_nan() -> None:
    assert choose([1.0, 3.0, 3.0]) == 1
    assert rank([1.0, 3.0, math.nan, 3.0, -math.inf]) == [1, 3, 0, 4, 2]
    assert choose([math.nan, -math.inf]) == 1
    assert choose([math.nan, math.nan]) == 0


@given(scores)
def test_rank_orders_all_and_chooses_its_first(values: list[float]) -> None:
    order = rank(values)
    assert sorted(order) == list(range(len(values)))
    assert choose(values) == order[0]
    for one, other in pairwise(order):
        if not math.isnan(values[other]):
            assert (-values[one], one) < (-values[other], other)


@pytest.mark.parametrize(
    ("answers", "weights", "winner"),
    [
        (["a", "b", "b"], [1.0, 1.0, 1.0], 1),
        (["a", "b", "b"], [3.0, 1.0, 1.0], 0),
        (["a", "b", "b"], [3.0, 2.5, 2.4], 1),
        (["b", "a", "b", "a"], [1.0, 1.0, 1.0, 1.0], 0),  # a tie: b was given first
        ([None, "a", None, None], [9.0, 0.0, 9.0, 9.0], 1),
        ([None, None], [1.0, 2.0], 0),
        (["b", "a"], [0.0, 0.0], 0),
        ([None, "a"], [-math.inf, 1.0], 1),  # who has no vote may have any weight
    ],
)
def test_votes_counted_on_paper(answers: list, weights: list[float], winner: int) -> None:
    assert vote(answers, weights) == winner


@given(ballots, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_decides_ties_only(cast: list, random) -> None:
    answers, weights = [given for given, _ in cast], [weight for _, weight in cast]
    totals = {
        given: math.fsum(w for a, w in cast if a == given) for given in set(answers) if given is not None
    }
    elected = answers[vote(answers, weights)]
    if totals:
        assert totals[elected] == max(totals.values())
        if sorted(totals.values())[-2:].count(max(totals.values())) == 1:
            shuffled = random.sample(cast, len(cast))
            again = vote([given for given, _ in shuffled], [weight for _, weight in shuffled])
            assert shuffled[again][0] == elected
    else:
        assert elected is None


@given(ballots, st.sampled_from([0.25, 2.0, 8.0]))
def test_a_vote_knows_no_unit(cast: list, unit: float) -> None:
    answers, weights = [given for given, _ in cast], [weight for _, weight in cast]
    if all(weight == 0 or weight > 1e-300 for weight in weights):  # smaller ones would be rounded
        assert vote(answers, weights) == vote(answers, [unit * weight for weight in weights])


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(NormprobeError, match="weights ≥ 0 in a vote"):
        vote(["a", "b"], [1.0, weight])
