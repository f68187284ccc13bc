"""A digest of every table of a small study; digests.json holds those that it has always had.

Exact are column names, types, the number of rows, everything that is no float, and the verdicts. Floats are compared by
their mean, median and standard deviation to a part in 10,000: another processor's matrix products differ in the last
bits, and training a dictionary carries that further.

`python tests/digests.py` writes digests.json anew. That is right only if a change of the numbers is the
purpose of the commit, which then says what was wrong before; never to make a refactoring pass.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.api import types

from normprobe.cli import main
from normprobe.runs.layout import FILES

DIGESTS = Path(__file__).with_name("digests.json")
STUDY = "--n-sae 16 --n-select 16 --n-measure 24 --width 32 --n-samples 1024 --sae-trainer sae_lens".split()


def run_study(out: Path) -> Path:
    """The small study, run in `out`."""
    assert main(["verify", *STUDY, "--out", str(out)]) == 0
    return out


def digests(run: Path) -> dict[str, Any]:
    """A digest of every table and array of a run, of its layer profile and its verdicts."""
    found: dict[str, Any] = {}
    for name, file in FILES.items():
        if not (run / file.path).exists():
            continue
        if file.columns is not None:
            found[name] = of_table(file.read(run))
        elif file.arrays is not None:
            found[name] = {key: of_floats(values) for key, values in sorted(file.read(run).items())}
    profile = FILES["published_profile"].read(run)
    found["profile"] = {key: profile[key] for key in ("spike_onset", "chosen_layers", "n_problems")}
    found["profile"] |= {mode: of_floats(np.array(q)) for mode, q in profile["quantiles_with_sinks"].items()}
    found["profile"] |= {"tau": of_floats(np.array(profile["tau"]))}
    found["verdicts"] = {
        entry["claim"]: {
            "verdict": entry["verdict"],
            "n": entry["n"],
            "estimate": {"mean": entry["estimate"]},
        }
        for entry in FILES["verdicts"].read(run)
    }
    return found


def of_table(table: pd.DataFrame) -> dict[str, Any]:
    floats = [name for name in sorted(table) if types.is_float_dtype(table[name])]
    exact = table[[name for name in sorted(table) if name not in floats]]
    return {
        "rows": len(table),
        "types": {name: str(table[name].dtype) for name in sorted(table)},
        "exact": hashlib.sha256(exact.to_json(orient="values").encode()).hexdigest(),
        "floats": {name: of_floats(table[name].to_numpy()) for name in floats},
    }


def of_floats(values: np.ndarray) -> dict[str, Any]:
    known = values[np.isfinite(values)].astype(np.float64)
    digest: dict[str, Any] = {"shape": list(values.shape), "not finite": int(values.size - known.size)}
    if known.size:
        mean, std = float(known.mean()), float(known.std())
        digest |= {"mean": mean, "median": float(np.median(known)), "std": std}
    return digest


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """What differs, a line each. Means and medians may differ by a part in 10,000 of their spread, too."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                yield f"{at}/{key}: only {'before' if key in old else 'now'}"
            elif key in ("mean", "median", "std"):
                spread = 1e-4 * old.get("std", 0.0)
                if old[key] != new[key] and old[key] != pytest.approx(new[key], rel=1e-4, abs=spread or 1e-9):
                    yield f"{at}/{key}: {old[key]!r}, now {new[key]!r}"
            else:
                yield from differences(old[key], new[key], f"{at}/{key}")
    elif old != new:
        yield f"{at}: {old!r}, now {new!r}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = digests(run_study(Path(folder) / "run"))
        DIGESTS.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
