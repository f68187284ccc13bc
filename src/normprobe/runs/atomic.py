"""Files written whole or not at all, and Parquet tables."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normprobe.errors import NormprobeError, refusing_damage

# Imported where they are used: every command reads its errors from here, and --help must not wait for pandas.
if TYPE_CHECKING:
    import pandas as pd

_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal. Raises NormprobeError if it cannot be read."""
    with refusing_disk_errors(path), path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; it becomes `path` when the block ends without an exception."""
    unfinished = path.with_name(f"{path.name}.tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that `path` holds either its old content or all of the new."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Raises ValueError on NaN or infinity: JSON has neither."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def make_directory(path: Path) -> None:
    """Make a directory that a user named, with its parents, if it is missing. Raises NormprobeError if it cannot be."""
    with refusing_disk_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # where nothing can be made, as in /proc
            raise NormprobeError(
                f"expected a directory that can be made, got {path}; name another one"
            ) from error


@contextmanager
def refusing_disk_errors(place: str | Path) -> Iterator[None]:
    """Turn a full disk, a missing permission or a name that is too long into a NormprobeError.

    It names the file, or `place`. Recognises OSError, and the errors of Rust writers (safetensors; two forms of its
    versions), which carry the number in their text only.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ENAMETOOLONG:
            name = str(getattr(error, "filename", None) or place)
            raise NormprobeError(
                f"expected the name of a file or directory, got {len(name)} characters ({name[:40]}…); shorten it"
            ) from error
        forms = ("(os error {})", "Os {{ code: {},")
        refused = (
            n for n in _DISK_ERRORS if n == number or any(form.format(n) in str(error) for form in forms)
        )
        reason = next(map(os.strerror, refused), None)
        if reason is None:
            raise
        where = getattr(error, "filename", None) or place
        raise NormprobeError(
            f"expected to read and write {where}, got: {reason}; "
            "choose a writable directory with free space, then run again"
        ) from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet table, atomically. Text that repeats is dictionary-encoded, so a token costs some bytes only."""
    with atomic_write(path) as unfinished:
        table.to_parquet(unfinished, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet table. Raises NormprobeError if it is missing or damaged."""
    import pandas as pd
    import pyarrow

    advice = f"delete {path.parent} and verify again"
    with refusing_damage(f"a readable table {path}", advice, OSError, ValueError, pyarrow.ArrowException):
        return pd.read_parquet(path)
