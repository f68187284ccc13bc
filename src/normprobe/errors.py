"""The one exception that a user is meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 2000
"""Characters of a message; of a longer one the middle is left out."""


class NormprobeError(Exception):
    """Bad input or an impossible request, in one line: what was expected, what came, what to do.

    The command line prints the message and exits with code 2. A message may quote what came, so line breaks become
    spaces, and other characters that do not print become escapes: nothing that is quoted moves a terminal's cursor.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST * 3 // 4]} … {line[-LONGEST // 4 :]}"
        super().__init__("".join(map(_printed, line)))


def _printed(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


@contextmanager
def refusing_damage(expected: str, advice: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn an error of these kinds in the block into a NormprobeError that names it."""
    try:
        yield
    except kinds as error:
        raise NormprobeError(
            f"expected {expected}, got {type(error).__name__} ({error}); {advice}"
        ) from error
