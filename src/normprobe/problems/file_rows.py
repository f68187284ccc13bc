"""The rows of a file of problems, as its own columns have them: .jsonl, .json, .csv or .parquet, compressed or not.

JSON and CSV are read without pandas, which would turn 42 in a column with a missing value into 42.0, and "NA" into
nothing.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import refusing_disk_errors
from normprobe.runs.untrusted import json_value

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
COMPRESSIONS = ("", ".gz", ".zst", ".bz2", ".xz")
Row = dict[str, Any]
MOST_UNPACKED = 2**28
"""Bytes that a packed file may unpack to: some kilobytes can become gigabytes. The largest known sets have a tenth."""


def format_of(name: str) -> tuple[str, str] | None:
    """The format and the compression that a file's name ends in, as (".csv", ".gz"); None for another file."""
    lowered = name.lower()
    endings = ((form, packed) for form in FORMATS for packed in COMPRESSIONS)
    return next((found for found in endings if lowered.endswith("".join(found))), None)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file. Raises NormprobeError for another file type, and for a file or line that cannot be read."""
    found = format_of(path.name)
    if found is None:
        raise NormprobeError(
            f"expected problems in a .jsonl, .json, .csv or .parquet file (or one of these as .gz, .zst, .bz2 or .xz), "
            f"got {path}; convert it"
        )
    form, packed = found
    try:
        with refusing_disk_errors(path):
            content = _unpack(path.read_bytes(), packed)
        return _READERS[form](content)
    except (OSError, ValueError, EOFError, lzma.LZMAError, zlib.error, csv.Error, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NormprobeError(
            f"expected readable problems in {path}, got an error ({reason}); check the file"
        ) from error


def _unpack(content: bytes, packed: str) -> bytes:
    """Raises ValueError for more than `MOST_UNPACKED` bytes."""
    if not packed:
        return content
    if packed == ".zst":
        import pyarrow

        stream: Any = pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd")
    else:
        stream = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[packed].open(io.BytesIO(content))
    with stream:
        unpacked = stream.read(MOST_UNPACKED + 1)
    if len(unpacked) > MOST_UNPACKED:
        raise ValueError(
            f"more than {MOST_UNPACKED >> 20} MiB when unpacked: unpack it yourself if you trust it"
        )
    return unpacked


def _text(content: bytes) -> str:
    """UTF-8, with or without a byte order mark, or UTF-16 with one."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


def _json_lines(content: bytes) -> list[Row]:
    rows = []
    for number, line in enumerate(_text(content).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_as_row(json_value(line, any_content=True), f"line {number}"))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg} at column {error.colno}") from error
    return rows


def _json(content: bytes) -> list[Row]:
    value = json_value(_text(content), any_content=True)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if not isinstance(value, list):
        raise ValueError('neither a list of problems nor {"data": [...]}')
    return [_as_row(item, f"row {number}") for number, item in enumerate(value, start=1)]


def _csv(content: bytes) -> list[Row]:
    lines = csv.DictReader(io.StringIO(_text(content), newline=""), strict=True)
    rows = []
    for number, row in enumerate(lines, start=1):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has more or fewer cells than the header")
        rows.append({name: cell or None for name, cell in row.items()})
    return rows


def _parquet(content: bytes) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    rows, size = [], 0
    try:
        # Parquet packs, too: a value that repeats takes next to nothing.
        for batch in pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)).iter_batches(batch_size=256):
            rows += batch.to_pylist()
            size += batch.nbytes
            if size > MOST_UNPACKED:
                raise ValueError(f"more than {MOST_UNPACKED >> 20} MiB of text")
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
    return rows


def _as_row(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {type(value).__name__}, not an object with named cells")
    return value


_READERS: dict[str, Callable[[bytes], list[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
