"""A run's tables, read once and only when asked for: what every claim, figure and report reads. No torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.runs.directory import Run
from normprobe.runs.layout import FILES, READERS

_NAMES = (*FILES, "roles", *(f"z/{reader}" for reader in READERS))


def stage_of(name: str) -> str:
    """The stage that writes a table, by a name that `Tables.has` knows."""
    return FILES[{"roles": "tokens"}.get(name, "z" if name.startswith("z/") else name)].stage


class Tables:
    """The tables of one run directory: `tables.tokens` and so on, by the names that `layout` describes them under.

    A missing or corrupt file raises NormprobeError (one line) when it is asked for, never before; `has` asks first.
    """

    def __init__(self, run_path: Path) -> None:
        self.path = Path(run_path)
        self._signals: dict[str, dict[str, np.ndarray]] = {}
        self._current: dict[str, bool] = {}

    def has(self, name: str) -> bool:
        """Whether the run has this table: a property's name, `signals/SUBJECT`, `z/READER` or `roles` (some token has
        one).

        Raises ValueError for a name that no table has.
        """
        if name not in _NAMES:
            raise ValueError(f"expected one of {', '.join(_NAMES)}, got {name!r}")
        if name == "roles":
            return self.has("tokens") and bool(self.tokens["role"].notna().any())
        if name.startswith("z/"):
            return self.has("z") and f"{name.removeprefix('z/')}/z_reasoning" in self._z
        return self._is_current(name) and (self.path / FILES[name].path).is_file()

    def __getattr__(self, name: str) -> pd.DataFrame:
        """A table by its name in `layout.FILES`, such as `tables.tokens`; called once per name."""
        if name not in FILES or FILES[name].columns is None:
            raise AttributeError(f"a run has no table {name!r}")
        table = self._read(name)
        setattr(self, name, table)
        return table

    @cached_property
    def profile(self) -> dict[str, Any]:
        """`layer_profile.json` as it stands; `normprobe.layer_profile` gives its meaning and checks its model."""
        return self._read("profile")

    def signals(self, subject: str) -> dict[str, np.ndarray]:
        """The signals of one subject: `norm`, entropies [layer, token] and `surprisal` [token], as float32."""
        if subject not in self._signals:
            self._signals[subject] = self._aligned(f"signals/{subject}")
        return self._signals[subject]

    def z(self, reader: str) -> dict[str, np.ndarray]:
        """The summed feature activations of one reader, each [layer, token]: `z_reasoning`, `z_matched`, `z_total`."""
        prefix = f"{reader}/"
        arrays = {key.removeprefix(prefix): z for key, z in self._z.items() if key.startswith(prefix)}
        if not arrays:
            raise NormprobeError(
                f"expected feature activations of the reader {reader!r} in {self.path / FILES['z'].path}, got none; "
                "delete the run's reductions/ and verify again"
            )
        return arrays

    def layers(self, reader: str) -> list[int]:
        """The layers that a reader has dictionaries for: the rows of its `z` arrays."""
        own = self.dictionary["reader"] == reader
        return sorted(map(int, self.dictionary.loc[own, "layer"].unique()))

    @cached_property
    def _z(self) -> dict[str, np.ndarray]:
        return self._aligned("z")

    def _is_current(self, name: str) -> bool:
        """Whether the stage that wrote a file has the key that the run expects: another study's is not read."""
        stage = stage_of(name)
        if stage and stage not in self._current:
            self._current[stage] = Run(self.path).is_current(stage)
        return self._current.get(stage, True)

    def _read(self, name: str) -> Any:
        return FILES[name].read(self.path, current=self._is_current(name))

    def _aligned(self, name: str) -> dict[str, np.ndarray]:
        """Arrays per token, checked to have as many tokens as tokens.parquet."""
        arrays, n = self._read(name), len(self.tokens)
        for key, values in arrays.items():
            if values.shape[-1] != n:
                file = self.path / FILES[name].path
                raise NormprobeError(
                    f"expected {n} tokens in {key!r} of {file}, as in {FILES['tokens'].path}, "
                    f"got {values.shape[-1]}; delete {file} and verify again"
                )
        return arrays
