"""Is a free-form answer right? For problems of a user's file; the testbed has its own exact rule."""

import re

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def matches(answer: str, gold: str) -> bool:
    r"""Whether `answer` (the text after the thought) gives `gold`.

    What counts is the last `\boxed{…}` if there is one; else, for a gold number, the last number in the text; else the
    whole text. Case, outer white space, a closing full stop and thousands separators do not matter.
    """
    if boxed := _BOXED.findall(answer):
        answer = boxed[-1]
    elif _NUMBER.fullmatch(gold.strip()) and (numbers := _NUMBER.findall(answer)):
        answer = numbers[-1]
    return _plain(answer) == _plain(gold)


def _plain(text: str) -> str | float:
    text = text.strip().removesuffix(".").strip().casefold()
    return float(text.replace(",", "")) if _NUMBER.fullmatch(text) else " ".join(text.split())
