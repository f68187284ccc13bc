"""The groups within which a matched control deals its doses: by class and by place."""

import numpy as np
import pandas as pd
import torch

from normprobe.experiments.token_groups import kind, token_groups
from normprobe.policies.controls.replayed_suppression import Doses


def spoken(roles: list[str | None], texts: list[str]) -> pd.DataFrame:
    """The tokens of two problems' responses, prompts before them and another mode beside."""
    part = {"split": "measure", "sample": 0, "mode": "think", "segment": "thought"}
    one = pd.DataFrame({"problem_id": "p", "role": roles, "token": texts} | part)
    other = one.iloc[:3].assign(problem_id="q")
    prompt = one.iloc[:2].assign(segment="prompt", role=None)
    return pd.concat([prompt, one, prompt.assign(problem_id="q"), other, one.assign(mode="no_think")])


def test_a_group_is_a_role_in_a_quarter() -> None:
    """By hand: 8 tokens, so quarters of two; the other response has 3, so quarters 0, 1 and 2; then nothing."""
    tokens = spoken(["plan", "plan", "plan", None, None, None, "computed", "computed"], ["x"] * 8)
    groups = token_groups(tokens, ["q", "p"], 10).tolist()
    q, p = groups
    assert (p[0], p[4], p[6]) == (p[1], p[5], p[7])
    assert len({p[0], p[2], p[3], p[4], p[6]}) == 5
    assert q[0] == p[0]
    assert q[1] == p[2]
    assert q[2] not in p
    assert p[8:] == [0, 0]
    assert q[3:] == [0] * 7
    assert 0 not in p[:8] + q[:3]


def test_without_roles_the_kind_of_string_is_the_class() -> None:
    tokens = spoken([None] * 8, [" 12", "7", "so", "x1", "=", "\n", "the", " ("])
    assert [kind(text) for text in tokens["token"][2:10]] == [
        "number", "number", "word", "number", "mark", "mark", "word", "mark",
    ]  # fmt: skip
    groups = token_groups(tokens, ["p"], 8)[0].tolist()
    assert groups[0] == groups[1]
    assert groups[4] == groups[5]
    assert len(set(groups)) == 6


def test_class_matched_doses_stay_in_role_and_quarter() -> None:
    rng = np.random.default_rng(0)
    roles = rng.choice(["copied", "computed", "format"], 40).tolist()
    tokens = spoken(roles, ["x"] * 40)
    delta = torch.arange(1.0, 41.0)[None, :, None]
    doses = Doses(delta, torch.tensor([40]), (0,), ("p",))
    got = doses.shuffled(0, token_groups(tokens, ["p"], 40)).delta[0, :, 0].long() - 1
    assert got.tolist() != list(range(40))
    assert sorted(got.tolist()) == list(range(40))
    for step, origin in enumerate(got.tolist()):
        assert roles[step] == roles[origin]
        assert step // 10 == origin // 10
