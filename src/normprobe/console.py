"""How every program of the package begins, speaks and ends: options from dataclasses, colours and progress bars where
somebody looks, JSON for scripts, an exit code, one line for an error.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any, TypeVar, cast

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import refusing_disk_errors
from normprobe.runs.process_variables import environment_variables

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
        row.split()[0].rstrip(",")
        for part in sections
        if "meant" in part[0]
        for row in part
        if row.startswith("--")
    ]
    return " ".join(sections[0]).rstrip(".") + (f"; perhaps you meant {' or '.join(meant)}" if meant else "")


def has_colours() -> bool:
    """Whether text on stdout may have colours: it is a terminal that knows them, and NO_COLOR is not set
    (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shows_bars() -> bool:
    """Whether progress bars are shown: stderr is a terminal, or a notebook that draws them."""
    # A program that is no notebook's kernel may have imported the module, too.
    kernel = sys.modules.get("ipykernel.kernelapp")
    return sys.stderr.isatty() or (kernel is not None and kernel.IPKernelApp.initialized())


def print_json(document: Any) -> None:
    """Print one JSON document: the only thing that a command prints on stdout under --json."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2))


def run_main(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Call `main(argv)` and return the exit code of the process; `argv` None means the process's arguments.

    0 or what `main` returns; 2 and one line on stderr after a NormprobeError, a full disk or a missing
    permission; 130 and one line after Ctrl-C; 141 if whoever read the output has gone (`| head`). Any other exception
    is a bug and keeps its traceback. Where stderr is no terminal, no library draws a progress bar.
    A module that also runs alone ends with `if __name__ == "__main__": sys.exit(run_main(main))`.
    """
    try:
        with nullcontext() if shows_bars() else _without_bars(), refusing_disk_errors("the output"):
            code = main(argv) or 0
            sys.stdout.flush()
            return code
    except NormprobeError as error:
        print(f"normprobe: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "normprobe: interrupted; the same command goes on after the parts that were finished",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        # Python writes what is left when it ends: that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


@contextmanager
def _without_bars() -> Iterator[None]:
    """Draw no progress bars in the block, whatever library asks for one, nor in the processes that it starts.

    Every one that these libraries draw is one of tqdm's. Its variable is read when it is imported, which may have been
    before: hence the constructor.
    """
    from tqdm.std import tqdm

    plain = tqdm.__init__

    def hidden(self: tqdm, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs | {"disable": True})

    tqdm.__init__ = hidden
    try:
        with environment_variables({"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}):
            yield
    finally:
        tqdm.__init__ = plain
