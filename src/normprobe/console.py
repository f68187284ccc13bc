"""How every program of the package begins, speaks and ends: options from dataclasses, colours and progress bars where
somebody looks, JSON for scripts, an exit code, one line for an error.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar, cast

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import refusing_disk_errors

_Options = TypeVar("_Options")


def parse(
    options: type[_Options], argv: Sequence[str] | None, command: str, default: _Options | None = None
) -> _Options:
    """The options of a command line; `argv` None means the process's arguments.

    options: a dataclass, whose fields and their docstrings make `normprobe COMMAND --help`. default: what holds where
    an option is not given. Exits with 0 after --help.
    Raises NormprobeError for an option that does not exist (naming the nearest one) and for a value of another type.
    """
    import tyro

    tyro._experimental_options["ansi_codes"] = has_colours()
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return cast(_Options, tyro.cli(options, prog=f"normprobe {command}", args=argv, default=default))
    except SystemExit as end:
        if not complaint.getvalue():
            raise
        raise NormprobeError(
            f"{_first_words(complaint.getvalue())}; normprobe {command} --help lists the options"
        ) from end


def _first_words(box: str) -> str:
    """What tyro's framed message says first, and the options that it takes for the meant ones."""
    rows = [row.strip("│╭╮╰╯ ") for row in box.strip().splitlines()]
    sections = [
        part.split("\n") for part in re.split(r"\n?^[─-]{8,}$\n?", "\n".join(rows[1:]), flags=re.M) if part
    ]
    meant = [
        row.split()[0] for part in sections if "meant" in part[0] for row in part if row.startswith("--")
    ]
    return " ".join(sections[0]).rstrip(".") + (f"; perhaps you meant {' or '.join(meant)}" if meant else "")


def has_colours() -> bool:
    """Whether text on stdout may have colours: it is a terminal that knows them, and NO_COLOR is not set
    (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shows_bars() -> bool:
    """Whether progress bars are shown: stderr is a terminal, or a notebook that draws them."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def print_json(document: Any) -> None:
    """Print one JSON document: the only thing that a command prints on stdout under --json."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2))


def run_main(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Call `main(argv)` and return the exit code of the process; `argv` None means the process's arguments.

    0 or what `main` returns; 2 and one line on stderr after a NormprobeError, a full disk or a missing
    permission; 130 and one line after Ctrl-C. Any other exception is a bug and keeps its traceback.
    In a pipe the progress bars of Transformers and the hub are off as well as our own.
    A module that also runs alone ends with `if __name__ == "__main__": sys.exit(run_main(main))`.
    """
    if not shows_bars():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with refusing_disk_errors("the output"):
            return main(argv) or 0
    except NormprobeError as error:
        print(f"normprobe: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("normprobe: interrupted; the same command resumes at the last finished part", file=sys.stderr)
        return 130
