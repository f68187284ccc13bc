"""Traces on disk: a Parquet table of tokens, a safetensors file of signals per source, all in the same token order.

Claims read them through `normprobe.claims.tables`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from normprobe.errors import NormprobeError
from normprobe.runs import atomic_write


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet table, atomically. Text that repeats is dictionary-encoded, so a token costs some bytes only."""
    with atomic_write(path) as unfinished:
        table.to_parquet(unfinished, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet table. Raises NormprobeError if it is missing or damaged."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        reason = " ".join(str(error).split())
        raise NormprobeError(
            f"expected a readable table {path}, got {type(error).__name__} ({reason}); "
            f"delete {path.parent} and verify again"
        ) from error


def signals_path(folder: Path, source: str) -> Path:
    """Where the signals of one source lie."""
    return folder / f"{source}.safetensors"


def write_signals(folder: Path, source: str, signals: dict[str, np.ndarray]) -> None:
    """Write the signals of one source, atomically."""
    with atomic_write(signals_path(folder, source)) as unfinished:
        save_file({name: np.ascontiguousarray(values) for name, values in signals.items()}, unfinished)
