"""Run directories whose reductions come from synthetic pairs: each reader satisfies A1-A4 with given constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from layout_fixture import put

from normprobe.theory.orthogonality import c_star, coherence
from normprobe.theory.synthetic import EXACT, Planted, atoms_with_cosine, synthetic_pair

LAYERS, D, K = 5, 24, 4


@dataclass(frozen=True)
class Reader:
    """overlap: mean over problems. c_star: what the dictionary table claims, None for the truth. The last
    `empty` layers have no reasoning feature."""

    planted: Planted = EXACT
    mean_abs_cos: float = 0.16  # the random baseline at d = 24 is 0.163
    r2: float = 0.97
    overlap: float = 0.01
    c_star: float | None = None
    empty: int = 0


GOOD = Reader(Planted(epsilon=1e-4, delta=1e-3, rho=0.01, kappa=1e-3))
NOISE = Reader(Planted(epsilon=0.4, delta=0.3, rho=0.5, kappa=0.2), r2=0.2, overlap=0.4)
USUAL = {"model": GOOD, "random": NOISE, "untrained": NOISE}


def write_bound_run(
    path: Path, readers: Mapping[str, Reader], *, n_problems: int = 60, seed: int = 0
) -> Path:
    rng = np.random.default_rng(seed)
    sums, pairs, dictionary = [], [], []
    for name, reader in readers.items():
        for layer in range(LAYERS):
            features = 0 if layer >= LAYERS - reader.empty else K
            dictionary.append(_dictionary(reader, features, rng) | {"reader": name, "layer": layer})
            for problem in range(n_problems):
                split = "select" if problem % 5 == 0 else "measure"
                key = {
                    "reader": name,
                    "layer": layer,
                    "problem_id": f"p{problem:03d}",
                    "split": split,
                    "scope": "response",
                }
                cells, pair = _cells(reader, features, rng)
                for feature_set in ("reasoning", "plus"):
                    sums += [key | {"feature_set": feature_set, "mode": mode} | cells[mode] for mode in cells]
                    pairs.append(key | {"feature_set": feature_set} | pair)
    for name, rows in (("sums", sums), ("pairs", pairs), ("dictionary", dictionary)):
        put(path, name, pd.DataFrame(rows))
    return path


def _cells(
    reader: Reader, features: int, rng: np.random.Generator
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    pair = synthetic_pair(rng, reader.planted, k=K, d=D)
    on = features > 0
    z = np.stack([pair.a, pair.b]) * on
    parts = {
        "h_sq": pair.states,
        "b_sq": pair.semantic + (0 if on else pair.reasoning),
        "rpart_sq": pair.reasoning * on,
        "r_sq": pair.residual,
    }
    cells = {
        mode: {name: float((vectors[row] ** 2).sum()) for name, vectors in parts.items()}
        | {
            "h_sq_mean": float((pair.states[row] ** 2).sum() * rng.uniform(1, 1.01)),
            "br": float(pair.semantic[row] @ pair.reasoning[row]) * on,
            "z_sum": float(z[row].sum()),
            "z_l1_active": int((z[row] > 0).sum()),
        }
        for row, mode in enumerate(("think", "no_think"))
    }
    return cells, {
        "k_delta": int((z[0] != z[1]).sum()),
        "overlap": reader.overlap * rng.uniform(0.5, 1.5) if on else np.nan,
    }


def _dictionary(reader: Reader, features: int, rng: np.random.Generator) -> dict[str, float]:
    atoms = atoms_with_cosine(K, D, reader.planted.cosine, rng)[:features]
    measured = coherence(atoms)
    return {
        "d": D,
        "width": 4 * D,
        "n_selected": features,
        "mean_abs_cos": reader.mean_abs_cos,
        "max_abs_cos": 0.5,
        "mu_selected": measured.max_abs,
        "mu_minus_selected": measured.mu_minus,
        "c_star_selected": c_star(atoms @ atoms.T) if reader.c_star is None else reader.c_star,
        "r2": reader.r2,
        "eps_mean": 0.04,
    }
