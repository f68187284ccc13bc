"""Selectors on the same samples, and the confidences some of them read."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.experiments.confidence import CANDIDATES, CONFIDENCES, WINDOW, TokenConfidence, confidences
from normprobe.experiments.controls.online_deepconf import GROUPS
from normprobe.experiments.selectors import SCORES, SELECTORS, SPENT, select_all

seeds = st.integers(0, 2**31 - 1)


def made(answers: list[str | None], correct: list[bool], problem_id: str = "p", **columns) -> pd.DataFrame:
    """Samples of one problem; all scores 1 where nothing else is said."""
    n = len(answers)
    table = {
        "problem_id": problem_id,
        "sample": range(n),
        "answer": answers,
        "correct": correct,
        "n_tokens": 10,
    }
    scores = dict.fromkeys(SCORES, 1.0) | {GROUPS: [[1.0]] * n}
    return pd.DataFrame(table | scores | columns, index=range(n))


def random_samples(seed: int, n_problems: int = 4, n_samples: int = 5) -> pd.DataFrame:
    """Problems with answers a (right), b, c and none, and random scores."""
    rng = np.random.default_rng(seed)
    frames = []
    for problem in range(n_problems):
        answers = [None if drawn == 3 else "abc"[drawn] for drawn in rng.integers(4, size=n_samples)]
        scores = {score: rng.random(n_samples) for score in SCORES}
        scores[GROUPS] = [[lowest] for lowest in scores["deepconf_lowest"]]
        lengths = rng.integers(1, 50, size=n_samples)
        correct = [given == "a" for given in answers]
        frames.append(made(answers, correct, f"problem {problem}", n_tokens=lengths, **scores))
    return pd.concat(frames, ignore_index=True)


def chosen(samples: pd.DataFrame, seed: int = 0) -> dict[str, int]:
    """The sample that each selector takes, of one problem."""
    table = select_all(samples, seed)
    return dict(zip(table["selector"], table["sample"], strict=True))


def test_choices_worked_out_on_paper() -> None:
    samples = made(
        ["x", "y", "y", None],
        [False, True, True, False],
        n_tokens=[7, 9, 5, 30],
        mean_logprob=[-3.0, -1.0, -0.5, -0.5],
        lrs_last_third=[6.0, 2.0, 3.0, 50.0],
        lrs_A_per_token=[1.0, 3.0, 2.0, 0.0],
        deepconf_worst=[9.0, 4.0, 4.5, 20.0],
        deepconf_lowest=[3.0, 5.0, 6.0, 4.0],
        lt_net_change=[math.nan, 2.0, 1.0, 0.0],
        lt_cumulative_change=[3.0, 2.0, math.nan, 9.0],
        deep_thinking_ratio=[0.1, 0.2, 0.9, 0.9],
        deep_thinking_prefix=[0.9, 0.1, 0.1, 0.8],
    )
    found = chosen(samples)
    wanted = {
        "majority": 1,
        "shortest": 2,
        "longest": 3,
        "oracle": 1,
        "mean_logprob": 2,  # the first of equals
        "lrs_last_third": 3,  # the highest; only a vote asks for an answer
        "mean_norm": 1,
        "vote by lrs_last_third": 0,  # 6 against 2 + 3
        "vote by lrs_A_per_token": 1,  # 1 against 3 + 2
        "vote by deepconf_worst": 0,  # 9 against 8.5
        "vote by deepconf_worst, top 10%": 0,
        "vote by deepconf_worst, top 90%": 0,  # without the 4.0
        "lt_net_change": 1,  # a thought of one segment has none
        "lt_cumulative_change": 1,  # the lowest
        "deep_thinking_ratio": 2,
        "think@n": 0,  # of the first and the last, who says nothing
        "think@n, whole": 2,
        "deepconf online, top 10%": 1,  # the bar is 4.8: 6 and 5 for y
    }
    assert {name: found[name] for name in wanted} == wanted


def test_a_choice_is_charged_what_it_needs_of_the_samples() -> None:
    samples = made(
        [*"xxyy"], [True] * 4, n_tokens=[20, 80, 60, 100], deep_thinking_prefix=[0.9, 0.1, 0.8, 0.2]
    )
    samples["deepconf_lowest"] = [5.0, 7.0, 1.0, 9.0]
    samples[GROUPS] = [[5.0], [7.0], [8.0, 1.0], [9.0]]
    table = select_all(samples, 0).set_index("selector")
    assert set(table["tokens"].drop([*SPENT])) == {260}
    assert table.loc["random", "tokens"] == samples["n_tokens"][table.loc["random", "sample"]]
    assert table.loc["think@n", "tokens"] == 20 + 50 + 60 + 50
    assert table.loc["deepconf online, top 90%", "tokens"] == 20 + 80 + (WINDOW + 1) + 100


def test_an_empty_response_takes_no_weight_from_the_others() -> None:
    samples = made(["x", "y", "y", None], [True] * 4, self_certainty=[3.0, 2.5, 2.4, -math.inf])
    assert chosen(samples)["vote by self_certainty"] == 1


def test_filters_keep_the_surest_and_their_ties() -> None:
    # Of ten, the 10 % quantile lies between the two lowest, the 90 % quantile between the two highest.
    confident = [float(i) for i in range(10)]
    samples = made(["z", *"yyyyyyyy", "x"], [True] * 10, deepconf_worst=confident)
    assert chosen(samples)["vote by deepconf_worst, top 10%"] == 9
    assert chosen(samples)["vote by deepconf_worst, top 90%"] == 1
    tied = made([*"yyxxx"], [True] * 5, deepconf_worst=[1.0, 1.0, 9.0, 9.0, 9.0])
    assert chosen(tied)["vote by deepconf_worst, top 10%"] == 2


@settings(max_examples=30)
@given(seeds)
def test_one_row_per_problem_and_selector_with_the_sample_it_names(seed: int) -> None:
    samples = random_samples(seed)
    table = select_all(samples, 0)
    assert len(table) == 4 * len(SELECTORS)
    assert not table.duplicated(["selector", "problem_id"]).any()
    back = table.merge(samples, on=["problem_id", "sample"], suffixes=("", "_given"))
    assert len(back) == len(table)
    assert (back["correct"] == back["correct_given"]).all()
    assert (back["answer"].fillna("") == back["answer_given"].fillna("")).all()


@settings(max_examples=30)
@given(seeds)
def test_no_selector_beats_the_oracle(seed: int) -> None:
    table = select_all(random_samples(seed), 0).pivot_table(
        index="problem_id", columns="selector", values="correct", aggfunc="first"
    )
    for name in SELECTORS:
        assert (table["oracle"].astype(bool) >= table[name].astype(bool)).all()


@settings(max_examples=30)
@given(seeds)
def test_a_vote_elects_an_answer_if_there_is_one(seed: int) -> None:
    samples = random_samples(seed)
    has_one = samples.groupby("problem_id")["answer"].count() > 0
    table = select_all(samples, 0)
    votes = table[table["selector"].str.startswith("vote") | (table["selector"] == "majority")]
    assert (votes["answer"].notna() == votes["problem_id"].map(has_one)).all()


@settings(max_examples=30)
@given(seeds)
def test_neither_the_order_of_the_rows_nor_other_problems_matter(seed: int) -> None:
    samples = random_samples(seed)
    whole = select_all(samples, 7).set_index(["problem_id", "selector"])["sample"]
    shuffled = select_all(samples.sample(frac=1, random_state=seed % 2**32), 7)
    assert shuffled.set_index(["problem_id", "selector"])["sample"].reindex(whole.index).equals(whole)
    alone = select_all(samples[samples["problem_id"] == "problem 2"], 7).set_index("selector")["sample"]
    assert alone.equals(whole.loc["problem 2"])


@settings(max_examples=30)
@given(seeds)
def test_renumbering_the_samples_changes_no_elected_answer(seed: int) -> None:
    """Random weights leave no ties; the plain majority can have some and is left out."""
    samples = random_samples(seed, n_problems=1)
    turned = samples.assign(sample=4 - samples["sample"])
    before, after = (select_all(table, 0).set_index("selector")["answer"] for table in (samples, turned))
    for name in (name for name in SELECTORS if name.startswith("vote")):
        assert before[name] == after[name] or (pd.isna(before[name]) and pd.isna(after[name]))


@settings(max_examples=30)
@given(seeds, st.integers(0, 5))
def test_a_random_pick_depends_on_its_key_alone(seed: int, key: int) -> None:
    one, other = (select_all(random_samples(s), key) for s in (seed, seed + 1))
    assert one[one["selector"] == "random"]["sample"].tolist() == (
        other[other["selector"] == "random"]["sample"].tolist()
    )


def test_random_picks_are_spread_over_samples_problems_and_seeds() -> None:
    samples = pd.concat([made(["a"] * 4, [True] * 4, f"problem {i}") for i in range(100)])
    picks = [select_all(samples, seed).query("selector == 'random'")["sample"] for seed in (0, 1)]
    assert picks[0].tolist() != picks[1].tolist()
    counts = picks[0].value_counts()
    assert counts.index.size == 4
    assert counts.min() > 10  # expected 25, standard deviation 4


def test_an_unknown_judgement_is_not_right() -> None:
    samples = made(["x", "y"], [False, True])
    samples["correct"] = pd.array([None, True], dtype="boolean")
    assert chosen(samples)["oracle"] == 1


def test_missing_columns_and_doubled_samples_are_refused() -> None:
    samples = random_samples(0)
    with pytest.raises(NormprobeError, match="got none of n_tokens, lrs_B"):
        select_all(samples.drop(columns=["lrs_B", "n_tokens"]), 0)
    with pytest.raises(NormprobeError, match="one row per problem_id and sample"):
        select_all(pd.concat([samples, samples.head(1)]), 0)


# Confidences


def told(logits: torch.Tensor, tokens: torch.Tensor) -> dict[str, float]:
    """The scores of a response, whose distributions are read in two parts."""
    half = len(tokens) // 2
    parts = (TokenConfidence.of(logits[part], tokens[part]) for part in (slice(half), slice(half, None)))
    return confidences(TokenConfidence.joined(list(parts)))


def slow(logits: torch.Tensor, said: list[int]) -> dict[str, float]:
    """The definitions in float64, one token and one window at a time."""
    likelihood, certainty, token = [], [], []
    for row, chosen_id in zip(logits.double().tolist(), said, strict=True):
        highest = max(row)
        log_sum = highest + math.log(math.fsum(math.exp(value - highest) for value in row))
        log_p = [value - log_sum for value in row]
        likelihood.append(log_p[chosen_id])
        uniform = 1 / len(row)
        certainty.append(math.fsum(uniform * (math.log(uniform) - value) for value in log_p))
        best = sorted(log_p, reverse=True)[:CANDIDATES]
        token.append(-math.fsum(best) / len(best))
    n, window = len(said), min(WINDOW, len(said))
    groups = sorted(math.fsum(token[i : i + window]) / window for i in range(n - window + 1))
    bottom = groups[: max(1, int(0.1 * len(groups)))]
    tail = token[n - max(1, round(0.25 * n)) :]

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    wanted = (mean(likelihood), mean(certainty), mean(token), mean(bottom), groups[0], mean(tail))
    return dict(zip(CONFIDENCES, wanted, strict=True))


@given(seeds, st.integers(1, 60), st.integers(2, 40), st.floats(0.1, 10))
def test_confidences_are_those_of_a_loop(seed: int, n_tokens: int, vocab: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_tokens, vocab, generator=generator) * sharpness
    said = torch.randint(vocab, (n_tokens,), generator=generator)
    assert told(logits, said) == pytest.approx(slow(logits, said.tolist()), rel=1e-4, abs=1e-5)


@given(seeds, st.floats(-50, 50))
def test_a_constant_added_to_the_logits_changes_nothing(seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, said = torch.randn(20, 30, generator=generator), torch.randint(30, (20,), generator=generator)
    assert told(logits + shift, said) == pytest.approx(told(logits, said), rel=1e-3, abs=1e-4)


def test_knowing_nothing_scores_lowest() -> None:
    said = torch.arange(30)
    uniform = told(torch.zeros(30, 50), said)
    assert uniform["self_certainty"] == pytest.approx(0, abs=1e-6)
    assert uniform["mean_logprob"] == pytest.approx(-math.log(50), rel=1e-5)
    sure = told(torch.eye(50)[:30] * 12, said)
    for name in CONFIDENCES:
        assert sure[name] > uniform[name]


def test_rounding_makes_no_negative_self_certainty() -> None:
    """It weights votes."""
    for vocab in range(2, 200):
        assert told(torch.zeros(3, vocab), torch.zeros(3).long())["self_certainty"] >= 0


def test_a_weak_stretch_shows_in_the_windows_and_not_in_the_tail() -> None:
    logits = torch.eye(50)[torch.zeros(100).long()] * 12
    weak = logits.clone()
    weak[30:50] = 0
    said = torch.zeros(100).long()
    before, after = told(logits, said), told(weak, said)
    assert after["deepconf_tail"] == before["deepconf_tail"]
    assert after["deepconf_lowest"] == pytest.approx(math.log(50), rel=1e-5)
    assert (
        after["deepconf_lowest"] <= after["deepconf_worst"] < after["deepconf_mean"] < before["deepconf_mean"]
    )


def test_half_precision_logits_are_read_in_float32() -> None:
    logits = (torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * 5).bfloat16()
    said = torch.arange(40)
    assert told(logits, said) == told(logits.float(), said)


def test_nothing_said_is_below_everything() -> None:
    silent = told(torch.zeros(0, 5), torch.zeros(0).long())
    assert set(silent.values()) == {-math.inf}
    assert tuple(silent) == CONFIDENCES
