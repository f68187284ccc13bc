"""Online DeepConf on finished samples against samples that are really written token by token and stopped."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.experiments.confidence import (
    CANDIDATES,
    WINDOW,
    TokenConfidence,
    confidences,
    group_confidences,
)
from normprobe.experiments.controls.online_deepconf import (
    GROUPS,
    LOWEST,
    confidence_bar,
    pick_online,
    stopped,
    tokens_online,
    warm_up,
)

seeds = st.integers(0, 2**31 - 1)
keeps = st.sampled_from([0.1, 0.5, 0.9])


def drawn(seed: int, n_samples: int) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Logits of samples of one problem, and the table that is made of them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5 * WINDOW, (n_samples,), generator=generator).tolist()
    logits = []
    for n in lengths:
        sharpness = (
            torch.rand(n, 1, generator=generator).cumsum(0).sin().abs() * 6
        )  # sure and unsure stretches
        logits.append(torch.randn(n, 30, generator=generator) * sharpness)
    read = [TokenConfidence.of(one, torch.zeros(len(one)).long()) for one in logits]
    rows = [confidences(one) | {GROUPS: group_confidences(one).tolist()} for one in read]
    said = torch.randint(4, (n_samples,), generator=generator).tolist()
    answers = [None if i == 3 else "abc"[i] for i in said]
    return logits, pd.DataFrame(rows).assign(answer=answers, n_tokens=lengths)


def written(logits: torch.Tensor, bar: float) -> tuple[int, bool]:
    """A sample written token by token: how many before it is stopped, if it is."""
    confident: list[float] = []
    for row in logits.double():
        best = torch.log_softmax(row, dim=-1).sort(descending=True).values[:CANDIDATES]
        confident.append(-float(best.mean()))
        if len(confident) >= WINDOW and math.fsum(confident[-WINDOW:]) / WINDOW < bar:
            return len(confident), True
    return len(confident), False


@given(seeds, st.integers(1, 8), keeps)
def test_cutting_afterwards_is_stopping_on_the_way(seed: int, n_samples: int, keep: float) -> None:
    logits, samples = drawn(seed, n_samples)
    bar, first = confidence_bar(samples, keep), warm_up(n_samples)
    spent = sum(map(len, logits[:first]))
    for i in range(first, n_samples):
        n, cut = written(logits[i], bar)
        assert stopped(samples[GROUPS][i], len(logits[i]), bar) == n
        assert cut == (samples[LOWEST][i] < bar and len(logits[i]) >= WINDOW)
        spent += n
    assert tokens_online(samples, keep) == spent <= samples["n_tokens"].sum()


@given(seeds, st.integers(1, 8), keeps)
def test_who_stays_above_the_bar_votes_with_its_lowest_group(seed: int, n_samples: int, keep: float) -> None:
    _, samples = drawn(seed, n_samples)
    bar = confidence_bar(samples, keep)
    weights: dict[str, float] = {}
    for answer, lowest in zip(samples["answer"], samples[LOWEST], strict=True):
        if isinstance(answer, str) and lowest >= bar:
            weights[answer] = weights.get(answer, 0.0) + lowest
    chosen = samples.iloc[pick_online(samples, keep)]
    if weights:
        assert weights[chosen["answer"]] == pytest.approx(max(weights.values()))
    else:
        assert chosen[LOWEST] == samples[LOWEST].max()


def test_a_bar_and_a_vote_worked_out_on_paper() -> None:
    lowest = [4.0, 8.0, 6.0, 2.0, 9.0, 1.0]
    groups = [[20.0, value, 20.0] for value in lowest]
    samples = pd.DataFrame({"answer": [*"xyxzxz"], LOWEST: lowest, GROUPS: groups})
    samples["n_tokens"] = WINDOW + 2
    assert warm_up(6) == 3
    assert confidence_bar(samples, 0.5) == 6
    # The warm-up is written to the end; then 2 and 1 are stopped at their second group.
    assert tokens_online(samples, 0.5) == 4 * (WINDOW + 2) + 2 * (WINDOW + 1)
    assert samples["answer"][pick_online(samples, 0.5)] == "x"  # 6 + 9 against 8
    assert (
        samples["answer"][pick_online(samples, 0.0)] == "x"
    )  # the bar is the surest of the warm-up: 8 against 9
    assert samples["answer"][pick_online(samples.iloc[:3], 0.0)] == "y"


def test_what_says_nothing_sets_no_bar() -> None:
    empty = pd.DataFrame({"answer": [None], LOWEST: [-np.inf], GROUPS: [[]], "n_tokens": [0]})
    assert confidence_bar(empty, 0.1) == -np.inf
    assert (pick_online(empty, 0.1), tokens_online(empty, 0.1)) == (0, 0)
    assert len(group_confidences(TokenConfidence.of(torch.zeros(0, 4), torch.zeros(0).long()))) == 0
