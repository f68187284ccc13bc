"""Problems: right by an independent solver, disjoint between sides, reproducible, with roles from the grammar."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.problems.testbed.domains import CROWDED, DRAW
from normprobe.problems.testbed.problems import draw_problem, make_problems, side_of
from normprobe.problems.testbed.roles import roles
from normprobe.problems.testbed.scoring import correct
from normprobe.problems.testbed.vocabulary import DOMAINS, END, END_THINK, FACTS, MODULUS, PEOPLE, VOCABULARY

seeds = st.integers(0, 2**32)
domains = st.sampled_from(DOMAINS)
difficulties = st.integers(1, 8)


def solve(question: str) -> str:
    """The answer by plain recursion over the definitions: a solver that shares nothing with the generator."""
    heading, _, *rest = question.split()
    body, asked = " ".join(rest).split("?")
    clauses = [clause.split() for clause in body.split(" ; ") if clause.strip()]
    defined = {clause[0].rstrip(":="): clause[1:] for clause in clauses}

    def value(name: str) -> int | str:
        match defined[name]:
            case [constant]:
                return int(constant, 10 if heading == "math" else 2)
            case [source, operation]:
                left, operand = int(value(source)), operation[1:]
                right = int(value(operand)) if heading == "bool" else int(operand)
                match operation[0]:
                    case "+":
                        return (left + right) % MODULUS
                    case "*":
                        return (left * right) % MODULUS
                    case "&":
                        return left & right
                    case "|":
                        return left | right
                    case "^":
                        return left ^ right
            case other:
                raise AssertionError(other)

    match heading, asked.split():
        case "math", [name]:
            return str(value(name))
        case "bool", [name]:
            return f"{value(name):03b}"
        case "graph", [node, count]:
            for _ in range(int(count)):
                node = defined[node][0]
            return node
        case _, words:
            person = words[-1]
            for relation in words[-3::-2]:
                person = FACTS[relation][person]
            return person


@given(seeds, domains, difficulties, st.none() | st.integers(0, CROWDED))
def test_the_answer_is_what_an_independent_solver_finds(
    seed: int, domain: str, difficulty: int, distractors: int | None
) -> None:
    problem = draw_problem(random.Random(seed), domain, difficulty, "eval", distractors)
    assert solve(problem.question) == problem.answer
    assert correct(f"answer : {problem.answer}", problem.answer)


@given(seeds, domains, difficulties)
def test_a_thought_computes_one_result_per_step_and_ends_in_the_answer(
    seed: int, domain: str, difficulty: int
) -> None:
    problem = draw_problem(random.Random(seed), domain, difficulty, "train")
    computed = [token.text for token in problem.thought if token.role == "computed"]
    assert len(computed) == difficulty
    assert computed[-1] == problem.answer


@given(seeds, domains, difficulties)
def test_roles_are_read_from_the_grammar_alone(seed: int, domain: str, difficulty: int) -> None:
    problem = draw_problem(random.Random(seed), domain, difficulty, "train")
    texts = [token.text for token in problem.thought]
    found = roles([*texts, END_THINK, "answer", ":", problem.answer, END])
    assert found[: len(texts)] == [token.role for token in problem.thought]
    assert found[len(texts) :] == ["format", "format", "format", "answer", "format"]


def test_roles_of_an_answer_alone_and_of_a_step_that_was_cut_off() -> None:
    assert roles(["answer", ":", "7", END]) == ["format", "format", "answer", "format"]
    cut = roles("plan : b from a ; now b: a +9 , a=".split())
    assert cut[-6:] == ["connective", None, None, None, "format", None]


@given(seeds, domains, difficulties)
def test_every_word_is_in_the_vocabulary(seed: int, domain: str, difficulty: int) -> None:
    problem = draw_problem(random.Random(seed), domain, difficulty, "eval")
    assert {*problem.question.split(), *problem.thought_text.split(), problem.answer} <= set(VOCABULARY)


@given(seeds, domains, difficulties)
def test_sides_ignore_distractors_and_never_mix(seed: int, domain: str, difficulty: int) -> None:
    draft = DRAW[domain](random.Random(seed), difficulty, None)
    side = side_of(draft)
    problem = draw_problem(random.Random(seed), domain, difficulty, side)
    assert problem.question == " ".join(draft.question)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("distractors", [0, CROWDED])
def test_a_problem_has_as_many_distractors_as_asked_for(domain: str, distractors: int) -> None:
    for problem in make_problems(8, 0, domains=[domain], distractors=distractors):
        definitions = problem.question.split("?")[0].split(";")[:-1]
        needed = {"arithmetic": problem.difficulty + 1, "pointer": problem.difficulty + 1, "recall": 0}
        each = 2 if domain in ("arithmetic", "boolean") else 1
        if domain == "boolean":
            asked = [text.split()[-2:] for text in definitions if ":" in text.split("bool :")[-1]]
            assert len(asked) == problem.difficulty + distractors
        else:
            assert len(definitions) == needed[domain] + each * distractors


def test_one_hop_recall_leaves_enough_to_ask_about_on_the_evaluation_side() -> None:
    asked = {p.question.split("?")[1] for p in make_problems(3000, 0, domains=["recall"], difficulties=[1])}
    trained = {
        p.question.split("?")[1]
        for p in make_problems(3000, 0, split="train", domains=["recall"], difficulties=[1])
    }
    assert not asked & trained
    assert len(asked) >= 200


def test_the_table_of_facts_is_fixed_and_made_of_permutations() -> None:
    assert all(sorted(image.values()) == sorted(PEOPLE) for image in FACTS.values())
    assert FACTS["mother"]["Amos"] == "Jane", (
        "the facts are part of the trained weights: they must never change"
    )


def test_problems_are_reproducible_and_balanced_over_cells() -> None:
    first, second = make_problems(64, 7), make_problems(64, 7)
    assert first == second
    assert first != make_problems(64, 8)
    cells = {(p.domain, p.difficulty) for p in first}
    assert len(cells) == 32
    assert len({p.id for p in first}) == 64
    assert all(a.id < b.id for a, b in pairwise(first))


@pytest.mark.parametrize(
    "arguments", [{"n": 0}, {"domains": ["poetry"]}, {"difficulties": [9]}, {"distractors": 8}]
)
def test_bad_requests_are_refused_in_one_line(arguments: dict) -> None:
    with pytest.raises(NormprobeError, match=r"^expected .*, got .*; .*$"):
        make_problems(**{"n": 4, "seed": 0, **arguments})
