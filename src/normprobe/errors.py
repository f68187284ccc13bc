"""The one exception that a user is meant to read."""


class NormprobeError(Exception):
    """Bad input or an impossible request, in one line: what was expected, what came, what to do.

    The command line prints the message and exits with code 2.
    """
