"""Words of a text for which a vocabulary has no token, so that a model reads all of them as one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from normprobe.models.model import OpenModel


def warn_of_unknown_words(opened: OpenModel, texts: Sequence[str]) -> None:
    """Name on stderr the words that the model does not know."""
    if unknown := dict.fromkeys(word for text in texts for word in _unknown(opened, text)):
        print(
            f"normprobe: {opened.identity.name} does not know {', '.join(map(repr, unknown))} and reads "
            f"each as {opened.tokenizer.unk_token}",
            file=sys.stderr,
        )


def _unknown(opened: OpenModel, text: str) -> list[str]:
    tokenizer = opened.tokenizer
    if tokenizer.unk_token_id is None or not tokenizer.is_fast:
        return []
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    places = zip(read["input_ids"], read["offset_mapping"], strict=True)
    return [text[first:last] for token, (first, last) in places if token == tokenizer.unk_token_id]
