"""The spans of thought and answer in a response: the one parser of thoughts.

Marks are searched for in decoded text and mapped back to tokens, for in many vocabularies a mark is several tokens and
the last of them holds a line break, too. A token that straddles a mark belongs to the mark.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from normprobe.thinking_formats import ThinkingFormat

ABSENT = (-1, -1)
_TAIL = 64
"""Tokens that hold the marks at the end of a prompt."""
_LONGEST_CHARACTER = 16
"""Tokens within which a character is completed, or is none: it has four bytes at most."""


@dataclass(frozen=True)
class Spans:
    """Half-open ranges of positions in the whole sequence, (-1, -1) where absent, without white space at their ends.

    thought: between the first marks, whoever wrote it (so filler's dots are its thought).
    answer: what follows the last closing mark, without its wrapper, before the end token.
    truncated: a thought was opened and never closed; then there is no answer.
    leaked: the response thinks although the prompt had closed the thought.
    """

    thought: tuple[int, int]
    answer: tuple[int, int]
    truncated: bool
    leaked: bool = False


def pieces(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """What each token adds to the text: joined they are the text, but for characters that are never completed.

    A token that ends within a character adds nothing, and the one that completes the character adds it.
    """
    found, start, whole = [], 0, 0
    for end in range(1, len(ids) + 1):
        # Decoded after the token before it: alone, some tokenizers drop the space that it begins with.
        before, after = decode(ids[start:whole]), decode(ids[start:end])
        if after.endswith("\ufffd") and end - whole < _LONGEST_CHARACTER:
            found.append("")
            continue
        found.append(after[len(before) :])
        start, whole = whole, end
    return found


class ThoughtParser:
    """Finds the spans of a format's responses. filler: the token that stands in for thought in the mode `filler`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, marks: ThinkingFormat, filler: int | None) -> None:
        self._tokenizer, self._filler = tokenizer, filler
        self._open, self._close = marks.open.strip(), marks.close.strip()
        self._answer_open, self._answer_close = marks.answer_open.strip(), marks.answer_close.strip()
        self._vocabulary = tokenizer.get_vocab()

    def spans(self, ids: Sequence[int], n_prompt: int, end: int) -> Spans:
        """Thought and answer in `ids[:end]`, whose first `n_prompt` are the prompt."""
        state, filler = self._prompt(ids, n_prompt)
        opens, closes = (self._find(mark, ids, n_prompt, end) for mark in (self._open, self._close))
        start = n_prompt if state == "opened" or (state == "" and not self._open) else None
        for first, after in opens:
            if start is None and (state == "closed" or not closes or first < closes[0][0]):
                start = after
            elif start is not None and self._trim(ids, start, first) == ABSENT:
                start = after  # the mark once more: it opens nothing new
        if start is None and state == "" and closes:
            start = n_prompt  # the response only closes its thought
        closing = next((close for close in closes if start is not None and close[0] >= start), None)
        thought = ABSENT if start is None else self._trim(ids, start, closing[0] if closing else end)
        leaked = state == "closed" and thought != ABSENT
        answer = self._answer(ids, n_prompt, end, closes)
        truncated = start is not None and (closing is None or any(first >= answer[0] for first, _ in opens))
        return Spans(
            thought if filler == ABSENT else filler,
            ABSENT if truncated else self._trim(ids, *answer),
            truncated,
            leaked,
        )

    def _answer(
        self, ids: Sequence[int], n_prompt: int, end: int, closes: list[tuple[int, int]]
    ) -> tuple[int, int]:
        """What follows the last closing mark; where the answer has a wrapper, what is inside the last one."""
        start = closes[-1][1] if closes else n_prompt
        if self._answer_open:
            wrappers = self._find(self._answer_open, ids, n_prompt, end)
            in_prompt = self._tail(ids, n_prompt).endswith(self._answer_open)
            start = wrappers[-1][1] if wrappers else n_prompt if in_prompt else start
        ends = [*closes, *self._find(self._answer_close, ids, n_prompt, end)]
        return start, min((first for first, _ in ends if first >= start), default=end)

    def _prompt(self, ids: Sequence[int], n_prompt: int) -> tuple[str, tuple[int, int]]:
        """Whether the prompt "opened" or "closed" the thought, and the filler in it. Only its end counts: a mark in
        system text opens nothing."""
        text = self._tail(ids, n_prompt)
        wrapped = bool(self._answer_open) and text.endswith(self._answer_open)
        text = text.removesuffix(self._answer_open).rstrip() if wrapped else text
        if text.endswith(self._close):
            closes = self._find(self._close, ids, max(n_prompt - _TAIL, 0), n_prompt)
            return "closed", self._dots(ids, closes[-1][0])
        if wrapped:
            return "closed", ABSENT
        return "opened" if self._open and text.endswith(self._open) else "", ABSENT

    def _dots(self, ids: Sequence[int], end: int) -> tuple[int, int]:
        """The filler that ends at `end`."""
        start = end
        while start > 0 and (ids[start - 1] == self._filler or self._is_space(ids[start - 1])):
            start -= 1
        return self._trim(ids, start, end)

    def _tail(self, ids: Sequence[int], n_prompt: int) -> str:
        return self._decode(ids[max(n_prompt - _TAIL, 0) : n_prompt]).rstrip()

    def _find(self, mark: str, ids: Sequence[int], start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of tokens between `start` and `end` that hold a mark, in order."""
        if not mark:
            return []
        part = list(ids[start:end])
        text, token = self._decode(part), self._vocabulary.get(mark)
        found = [(start + i, start + i + 1) for i, other in enumerate(part) if other == token]
        if len(found) == text.count(mark):
            return found
        # Characters after so many tokens. By pieces: decoding from the start for every mark takes minutes where a model
        # repeats one.
        lengths = list(accumulate(map(len, pieces(self._decode, part)), initial=0))
        return [
            (
                start + bisect_right(lengths, place.start()) - 1,
                start + bisect_left(lengths, place.end()),
            )
            for place in re.finditer(re.escape(mark), text)
        ]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def _trim(self, ids: Sequence[int], start: int, end: int) -> tuple[int, int]:
        """The range without white space at its ends; ABSENT if nothing is left."""
        while start < end and self._is_space(ids[start]):
            start += 1
        while start < end and self._is_space(ids[end - 1]):
            end -= 1
        return (start, end) if start < end else ABSENT

    def _is_space(self, token: int) -> bool:
        return self._decode([token]).isspace()
