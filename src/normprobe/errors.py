"""The one exception that a user is meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager


class NormprobeError(Exception):
    """Bad input or an impossible request, in one line: what was expected, what came, what to do.

    The command line prints the message and exits with code 2.
    """


@contextmanager
def refusing_damage(expected: str, advice: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn an error of these kinds in the block into a NormprobeError that names it."""
    try:
        yield
    except kinds as error:
        reason = " ".join(str(error).split())
        raise NormprobeError(
            f"expected {expected}, got {type(error).__name__} ({reason}); {advice}"
        ) from error
