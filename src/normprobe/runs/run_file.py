"""One file of a run directory, checked against its schema when it is written and when it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.runs.atomic import atomic_write, atomic_write_json, write_table
from normprobe.runs.schema import Arrays, Columns


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
                f"expected {source}, which this run does not have; "
                f"finish the run with `normprobe verify --out {run}`"
            )
        # The formats' readers share no base class for a damaged file.
        advice = f"delete {source.parent} and verify again"
        with refusing_damage(f"a readable table in {source}", advice, Exception):
            if self.columns is not None:
                content = pd.read_parquet(source)
            elif self.arrays is not None:
                content = load_file(source)
            else:
                content = json.loads(source.read_text(encoding="utf-8"))
        if (schema := self.columns or self.arrays) is not None:
            schema.check(content, source)
        return content

    def markdown(self) -> str:
        """A heading, what the file is, and a table of its columns or arrays."""
        parts = [f"## {self.path}", f"{self.about[0].upper()}{self.about[1:]}."]
        parts += [schema.markdown() for schema in (self.columns, self.arrays) if schema is not None]
        return "\n\n".join(parts) + "\n"
