"""Writing single files of a run, as the layout wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normprobe.runs.layout import FILES

_NUMBERS = {"integer": "int64", "number": "float64"}
_NEUTRAL: dict[str, Any] = {"text": "", "integer": 0, "number": 0.0, "flag": False, "any": 0}


def put(run: Path, name: str, content: Any) -> None:
    """Write a file into its place in a run; columns that a test does not care about get a neutral value."""
    file = FILES[name]
    (run / file.stage).mkdir(parents=True, exist_ok=True)
    if isinstance(content, pd.DataFrame) and file.columns is not None:
        content = content.copy()
        for key, column in file.columns.by_name.items():
            if key not in content and not column.optional:
                content[key] = (
                    np.nan if column.nullable and column.kind == "number" else _NEUTRAL[column.kind]
                )
            elif key in content and column.kind in _NUMBERS and content[key].notna().all():
                content[key] = content[key].astype(_NUMBERS[column.kind])
    file.write(run / file.stage, content)
