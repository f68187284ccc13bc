"""One process at a time works in a run directory."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import refusing_disk_errors

LOCK = ".lock"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a directory for the block; the operating system lets go of it when the process ends, however it ends.

    The file `.lock` in it says who holds it: process, host, command, since when.
    Raises NormprobeError that names the holder if another process holds it, or if it cannot be written.
    """
    with refusing_disk_errors(folder):
        file = (folder / LOCK).open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "a process that is just starting"
            raise NormprobeError(
                f"expected {folder} to be free, got a directory held by {holder}; "
                "wait for it, stop it, or name another directory"
            ) from error
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        file.write(f"process {os.getpid()} on {socket.gethostname()} ({command}) since {since}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
