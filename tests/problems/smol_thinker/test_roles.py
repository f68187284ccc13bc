"""Roles read from a response are those of whoever wrote it, whatever its numbers, and None where it cannot be read."""

import random
import re
from collections.abc import Sequence
from itertools import accumulate

import pytest
from demonstrations_fixture import demonstrations, response, text_of
from hypothesis import given
from hypothesis import strategies as st

from normprobe.problems.smol_thinker.families import FAMILIES
from normprobe.problems.smol_thinker.lines import Part
from normprobe.problems.smol_thinker.source import SmolThinkerProblems
from normprobe.problems.testbed.domains import Role

NAMES = sorted(FAMILIES)


def tokens_of(text: str, rng: random.Random) -> list[str]:
    """A text cut up at random, as a tokenizer that knows nothing of parts would: marks are whole."""
    tokens: list[str] = []
    for piece in re.split(r"(<think>|</think>|<\|im_end\|>)", text):
        if re.fullmatch(r"<.*>", piece):
            tokens.append(piece)
            continue
        while piece:
            length = rng.choice((1, 1, 1, 2, 3))
            tokens.append(piece[:length])
            piece = piece[length:]
    return tokens


def expected(tokens: Sequence[str], parts: Sequence[Part]) -> list[Role | None]:
    """The role of the part that each token begins in."""
    of_characters = [role for text, role in parts for _ in text]
    starts = accumulate((len(token) for token in tokens[:-1]), initial=0)
    return [of_characters[start] for start in starts]


def lines_of(thought: Sequence[Part]) -> list[list[Part]]:
    lines: list[list[Part]] = [[]]
    for part in thought:
        if part[0] == "\n":
            lines.append([])
        else:
            lines[-1].append(part)
    return lines


def joined(lines: Sequence[Sequence[Part]]) -> list[Part]:
    return [part for i, line in enumerate(lines) for part in ([("\n", "format")] if i else []) + [*line]]


@pytest.mark.parametrize("name", NAMES)
def test_the_parser_gives_exactly_the_solvers_roles(name: str) -> None:
    rng = random.Random(0)
    of_any_family = SmolThinkerProblems().roles
    for number, (_, shown) in enumerate(demonstrations(name)):
        whole = response(shown.thought, shown.answer)
        tokens = tokens_of(text_of(whole), rng)
        assert FAMILIES[name].roles(tokens) == expected(tokens, whole)
        if number % 5 == 0:
            for parts in (whole, whole[2:], [*shown.answer, ("<|im_end|>", "format")]):
                tokens = tokens_of(text_of(parts), rng)
                assert FAMILIES[name].roles(tokens) == of_any_family(tokens) == expected(tokens, parts)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_digits_and_missing_steps_change_no_role(name: str) -> None:
    rng = random.Random(1)
    for _, shown in demonstrations(name)[::2]:
        lines = lines_of(shown.thought)
        del lines[rng.randrange(len(lines))]
        parts = [
            (re.sub(r"\d", lambda _: str(rng.randrange(10)), text), role)
            for text, role in response(joined(lines), shown.answer)
        ]
        tokens = tokens_of(text_of(parts), rng)
        assert FAMILIES[name].roles(tokens) == expected(tokens, parts)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_read_has_no_role_and_the_rest_keeps_its_own(name: str) -> None:
    rng = random.Random(2)
    for _, shown in demonstrations(name)[::5]:
        lines = lines_of(shown.thought)
        at = rng.randrange(len(lines))
        lines[at] = [("Well, I am not sure.", "plan")]
        parts = response(joined(lines), [("It is hard to say!", "answer"), ("\n", "format"), *shown.answer])
        unread = {"Well, I am not sure.", "It is hard to say!"}
        tokens = [text for text, _ in parts]
        wanted = [None if text in unread else role for text, role in parts]
        assert FAMILIES[name].roles(tokens) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_of_a_response_that_was_cut_off_nothing_is_read_wrongly(name: str) -> None:
    rng = random.Random(3)
    for _, shown in demonstrations(name)[::5]:
        parts = response(shown.thought, shown.answer)
        tokens = tokens_of(text_of(parts), rng)
        tokens = tokens[: rng.randrange(1, len(tokens))]
        pairs = zip(FAMILIES[name].roles(tokens), expected(tokens, parts), strict=True)
        assert [pair for pair in pairs if pair[0] not in (None, pair[1])] == []


@given(data=st.data())
def test_any_edit_is_survived(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    _, shown = data.draw(st.sampled_from(demonstrations(name)[::60]))
    text = text_of(response(shown.thought, shown.answer))
    start = data.draw(st.integers(0, len(text)))
    text = text[:start] + data.draw(st.text(max_size=12)) + text[data.draw(st.integers(start, len(text))) :]
    tokens = tokens_of(text, random.Random(0))
    roles = FAMILIES[name].roles(tokens)
    assert len(roles) == len(tokens)
    assert set(roles) <= {"computed", "copied", "plan", "connective", "format", "answer", None}
