"""One file of a run directory, checked against its schema when it is written and when it is read.

Schemas of tables and of arrays per token are written as text: a name, a kind or shape, and what it means. Kinds: text,
integer, number (a float), flag (true or false), integers (a list of them), any. A question mark after the kind allows
missing values; one after the name allows that column or array to be absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from safetensors.numpy import load_file, save_file

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.runs.atomic import atomic_write, atomic_write_json, write_table
from normprobe.runs.directory import resuming
from normprobe.runs.untrusted import read_json

_FITS = {
    "text": lambda column: types.is_string_dtype(column.dropna()) or types.is_object_dtype(column),
    "integer": lambda column: types.is_integer_dtype(column),
    "number": lambda column: types.is_float_dtype(column),
    "flag": lambda column: types.is_bool_dtype(column),
    "integers": lambda column: types.is_object_dtype(column),
    "any": lambda column: True,
}


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    kind: str
    nullable: bool
    optional: bool
    about: str


@dataclass(frozen=True)
class Columns:
    """The columns of a table by name."""

    by_name: Mapping[str, Column]

    def check(self, table: pd.DataFrame, file: Path) -> None:
        """Raise NormprobeError, naming `file` and the column, if a column is missing, unknown or of another kind."""
        missing = [name for name, column in self.by_name.items() if name not in table and not column.optional]
        unknown = [str(name) for name in table if name not in self.by_name]
        if missing or unknown:
            raise _refused(file, ", ".join(self.by_name), _differences(missing, unknown))
        for name, values in table.items():
            column = self.by_name[str(name)]
            if values.isna().any():
                if not column.nullable:
                    raise _refused(
                        file, f"no missing values in '{name}'", f"{int(values.isna().sum())} of them"
                    )
                # What a missing value turns into depends on the column's type: a flag into an object, and so on.
                values = values.dropna().infer_objects()
                if column.kind == "integer" and types.is_float_dtype(values):
                    values = values.astype("int64") if (values % 1 == 0).all() else values
            if len(values) and not _FITS[column.kind](values):
                raise _refused(file, f"'{name}' as {column.kind}", str(values.dtype))

    def markdown(self) -> str:
        rows = [
            f"| `{name}` | {column.kind}{' or missing' if column.nullable else ''} | {column.about} |"
            for name, column in self.by_name.items()
        ]
        return "\n".join(["| column | kind | |", "|---|---|---|", *rows])


@dataclass(frozen=True)
class Array:
    """One array of a safetensors file, float32; the words of its shape are `layer` and `token`."""

    shape: tuple[str, ...]
    optional: bool
    about: str


@dataclass(frozen=True)
class Arrays:
    """The arrays of a safetensors file by name; a name in the file may have a prefix, `READER/NAME`."""

    by_name: Mapping[str, Array]

    def check(self, values: Mapping[str, np.ndarray], file: Path) -> None:
        """Raise NormprobeError, naming `file` and the array, for a missing, unknown or misshapen array."""
        prefixes = {key.rpartition("/")[0] for key in values} or {""}
        expected = {
            f"{p}/{name}".lstrip("/"): array for p in prefixes for name, array in self.by_name.items()
        }
        missing = [key for key, array in expected.items() if not array.optional and key not in values]
        unknown = [key for key in values if key not in expected]
        if missing or unknown:
            raise _refused(file, f"the arrays {', '.join(self.by_name)}", _differences(missing, unknown))
        n_tokens = {array.shape[-1] for array in values.values()}
        for key, array in values.items():
            shape = expected[key].shape
            if array.ndim != len(shape) or array.dtype != np.float32:
                raise _refused(
                    file, f"'{key}' as float32 [{', '.join(shape)}]", f"{array.dtype} {array.shape}"
                )
        if len(n_tokens) > 1:
            raise _refused(file, "arrays of as many tokens each", " and ".join(map(str, sorted(n_tokens))))

    def markdown(self) -> str:
        rows = [
            f"| `{name}` | [{', '.join(array.shape)}] | {array.about} |"
            for name, array in self.by_name.items()
        ]
        return "\n".join(["| array | shape | |", "|---|---|---|", *rows])


def columns(text: str) -> Columns:
    """Columns from lines `NAME KIND MEANING`."""
    found = {}
    for line in filter(str.strip, text.splitlines()):
        name, kind, *about = line.split(maxsplit=2)
        assert kind.rstrip("?") in _FITS, kind
        found[name.rstrip("?")] = Column(
            kind.rstrip("?"), kind.endswith("?"), name.endswith("?"), "".join(about)
        )
    return Columns(found)


def arrays(text: str) -> Arrays:
    """Arrays from lines `NAME [layer] token MEANING`."""
    found = {}
    for line in filter(str.strip, text.splitlines()):
        name, *words = line.split()
        n = words.index("token") + 1
        found[name.rstrip("?")] = Array(tuple(words[:n]), name.endswith("?"), " ".join(words[n:]))
    return Arrays(found)


@dataclass(frozen=True)
class RunFile:
    """A table (`columns`), arrays per token (`arrays`), or a file of another format.

    path: in the run directory; its first folder is the stage that writes it.
    """

    path: str
    about: str
    columns: Columns | None = None
    arrays: Arrays | None = None

    @property
    def stage(self) -> str:
        """The stage that writes the file; empty for a file of the run as a whole."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def write(self, stage: Path, content: Any) -> None:
        """Write the file into the folder of its stage, atomically: a table, arrays by name, or what JSON can hold.

        Raises NormprobeError, naming file and column, if the content does not fit the schema.
        """
        target = stage / self.name
        if self.columns is not None:
            self.columns.check(content, target)
            write_table(target, content)
        elif self.arrays is not None:
            self.arrays.check(content, target)
            with atomic_write(target) as unfinished:
                save_file({key: np.ascontiguousarray(array) for key, array in content.items()}, unfinished)
        else:
            atomic_write_json(target, content)

    def read(self, run: Path, *, current: bool = True) -> Any:
        """Read the file of a run directory: a table, arrays by name, or what the JSON holds.

        current: whether it is of the run's present settings; one that is not counts as missing.
        Raises NormprobeError if it is missing or damaged, or does not fit the schema (naming file and column).
        """
        source = run / self.path
        if not (current and source.is_file()):
            raise NormprobeError(
                f"expected {source}, which this run does not have; finish it with {resuming(run)}"
            )
        content: Any
        # The formats' readers share no base class for a damaged file.
        advice = f"delete {source.parent} and verify again"
        with refusing_damage(f"a readable table in {source}", advice, Exception):
            if self.columns is not None:
                content = pd.read_parquet(source)
            elif self.arrays is not None:
                content = load_file(source)
            else:
                content = read_json(source)
        if (schema := self.columns or self.arrays) is not None:
            schema.check(content, source)
        return content

    def markdown(self) -> str:
        """A heading, what the file is, and a table of its columns or arrays."""
        parts = [f"## {self.path}", f"{self.about[0].upper()}{self.about[1:]}."]
        parts += [schema.markdown() for schema in (self.columns, self.arrays) if schema is not None]
        return "\n\n".join(parts) + "\n"


def _differences(missing: list[str], unknown: list[str]) -> str:
    parts = [f"no {', '.join(missing)}"] * bool(missing) + [f"{', '.join(unknown)} besides"] * bool(unknown)
    return " and ".join(parts)


def _refused(file: Path, expected: str, got: str) -> NormprobeError:
    return NormprobeError(f"expected {expected} in {file}, got {got}; delete {file.parent} and verify again")
