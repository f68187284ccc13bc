"""Traces on disk: a Parquet table of tokens, a safetensors file of signals per source, all in the same token order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from normprobe.errors import NormprobeError
from normprobe.runs import atomic_write

_TOKENS = "tokens.parquet"
_PER_LAYER = ("norm", "entropy_softmax", "entropy_rms", "entropy_energy", "output_entropy")


def write_tokens(folder: Path, tokens: pd.DataFrame) -> None:
    """Write tokens.parquet. Text that repeats is dictionary-encoded by Parquet, so a token costs some bytes only."""
    with atomic_write(folder / _TOKENS) as unfinished:
        tokens.to_parquet(unfinished, index=False)


def write_signals(folder: Path, source: str, signals: dict[str, np.ndarray]) -> None:
    """Write {source}.safetensors."""
    with atomic_write(signals_path(folder, source)) as unfinished:
        save_file({name: np.ascontiguousarray(values) for name, values in signals.items()}, unfinished)


def signals_path(folder: Path, source: str) -> Path:
    """Where the signals of one source lie."""
    return folder / f"{source}.safetensors"


def read_tokens(folder: Path) -> pd.DataFrame:
    """The token table. Raises NormprobeError if it is missing or damaged."""
    path = folder / _TOKENS
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise _unreadable(path, error) from error


def read_signals(folder: Path, source: str) -> dict[str, np.ndarray]:
    """The signals of one source. Raises NormprobeError if they are missing, damaged or incomplete."""
    path = signals_path(folder, source)
    try:
        signals = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    if missing := [name for name in (*_PER_LAYER, "surprisal") if name not in signals]:
        raise NormprobeError(
            f"expected the signals {', '.join(missing)} in {path}, got a file without; delete {folder} and verify again"
        )
    return signals


def _unreadable(path: Path, error: Exception) -> NormprobeError:
    reason = " ".join(str(error).split())
    return NormprobeError(
        f"expected a readable {path}, got {type(error).__name__} ({reason}); delete {path.parent} and verify again"
    )
