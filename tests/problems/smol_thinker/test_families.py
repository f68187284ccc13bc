"""smol-thinker's families: every demonstration is right, levels get harder, training and evaluation share nothing."""

import statistics
from collections import defaultdict
from itertools import pairwise

import pytest
from demonstrations_fixture import FEWEST, demonstrations, text_of

from normprobe.errors import NormprobeError
from normprobe.problems.problem_rows import same_question
from normprobe.problems.smol_thinker.families import FAMILIES, score

NAMES = sorted(FAMILIES)


def test_six_families_or_more_in_three_domains_at_three_levels_or_more() -> None:
    assert len(FAMILIES) >= 4
    assert {family.domain for family in FAMILIES.values()} == {"arithmetic", "text", "logic"}
    assert min(len(family.levels) for family in FAMILIES.values()) >= 3
    assert [family.name for family in FAMILIES.values()] == list(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_every_demonstrations_answer_is_right_and_that_of_another_problem_is_not(name: str) -> None:
    written = demonstrations(name)
    assert len(written) >= FEWEST
    assert [problem for problem, shown in written if not score(problem, text_of(shown.answer))] == []
    others = [(p, q) for (p, _), (q, _) in pairwise(written) if p.answer != q.answer]
    wrong = [score(problem, other.answer) for problem, other in others]
    assert sum(wrong) == 0, "an answer that is another's"


@pytest.mark.parametrize("name", NAMES)
def test_thoughts_of_a_harder_level_are_as_long_or_longer(name: str) -> None:
    lengths = defaultdict[int, list[int]](list)
    for problem, shown in demonstrations(name):
        lengths[problem.level].append(len(text_of(shown.thought)))
    of_levels = [statistics.mean(lengths[level]) for level in sorted(lengths)]
    assert len(of_levels) == len(FAMILIES[name].levels)
    assert of_levels == sorted(of_levels)


@pytest.mark.parametrize("name", NAMES)
def test_problems_are_those_of_family_level_seed_and_side(name: str) -> None:
    family = FAMILIES[name]
    first = family.problems(2, 20, seed=3)
    assert first == family.problems(2, 20, seed=3)
    assert first[:5] == family.problems(2, 5, seed=3)
    assert [family.demonstrate(problem) for problem in first] == [family.demonstrate(p) for p in first]
    questions = {same_question(problem.question) for problem in first}
    assert len(questions) == 20
    assert questions != {same_question(problem.question) for problem in family.problems(2, 20, seed=4)}
    assert {problem.level for problem in first} == {2}


@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluation_share_no_question(name: str) -> None:
    family = FAMILIES[name]
    train, held_out = (
        {same_question(problem.question) for seed in (0, 1) for problem in family.problems(1, 60, seed, side)}
        for side in ("train", "eval")
    )
    assert not train & held_out


@pytest.mark.parametrize("level", [0, 5, -1])
def test_a_level_that_is_none_is_refused(level: int) -> None:
    with pytest.raises(NormprobeError, match=f"a level of chain_sum from 1 to 4, got {level}"):
        FAMILIES["chain_sum"].problems(level, 1, seed=0)


def test_the_thought_leads_to_the_answer() -> None:
    """The last thing computed is the answer, where a thought computes it as a whole."""
    for name in ("chain_sum", "leg_counting"):
        for problem, shown in demonstrations(name):
            *_, last = [text for text, role in shown.thought if role == "computed"]
            assert last == problem.answer
    for problem, shown in demonstrations("spell_backward"):
        assert "".join(text for text, role in shown.thought if role == "copied") == problem.answer
