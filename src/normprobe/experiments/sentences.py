"""The sentences of a thought, as spans of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from normprobe.models.chat import Chat

_END = re.compile(r"[.!?;。！？][\"'”’)\]}*_]*\s*$|\n\s*$")
_SPACELESS = re.compile(r"[。！？][”’」』）]*$")
"""Ends after which no white space comes."""
_NUMBERING = re.compile(r"\s*(?:\d{1,3}|[A-Za-z])[.)]\s*")
"""The number of an item, which is no sentence."""


def sentence_spans(chat: Chat, token_ids: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The half-open spans of the sentences in `token_ids[start:end]`, which follow one another without a gap.

    A sentence ends with a token after which the text has come to `.`, `!`, `?` or `;` before white space, or to a line
    break; a token that holds an end and more closes no sentence. What is left at the end is the last sentence.
    """
    first = start
    for after in range(start + 1, end + 1):
        if after == end or _closes(chat, token_ids[first : after + 1]):
            yield first, after
            first = after


def first_sentence(chat: Chat, token_ids: Sequence[int], start: int, end: int) -> str:
    """The words of the first sentence in `token_ids[start:end]`, small and one space apart; empty if there is none."""
    first, after = next(sentence_spans(chat, token_ids, start, end), (start, start))
    return " ".join(chat.text(token_ids[first:after]).casefold().split())


def _closes(chat: Chat, ids: Sequence[int]) -> bool:
    """Whether all tokens but the last are a sentence."""
    text = chat.text(ids[:-1])
    if not text.strip() or not _END.search(text) or _NUMBERING.fullmatch(text):
        return False
    following = chat.text(ids)[len(text) :]
    return bool(text[-1].isspace() or following[:1].isspace() or _SPACELESS.search(text))
