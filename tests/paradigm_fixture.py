"""The table of `normprobe paradigm` with planted curves: sharp, gradual, or made by the texts alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

LAYERS = 8
FLAT = np.zeros(LAYERS)
SHARP = np.array([0, 0, 0, 0, 0, 0, 0.6, 0.6])
GRADUAL = np.linspace(0.0, 0.6, LAYERS)


def curves(
    networks: Mapping[str, np.ndarray],
    *,
    features: Mapping[str, np.ndarray] | None = None,
    texts: Mapping[str, np.ndarray] | None = None,
    right: Mapping[str, np.ndarray] | None = None,
    n: int = 40,
    seed: int = 0,
) -> pd.DataFrame:
    """paradigm/curves.parquet. networks: paradigm → by how much its model raises the log norm in thinking [layer].

    features: the same for the features, where they do not go with the norm; texts: what every network shows on a
    paradigm's responses, the base and the twin too; right: paradigm → share right [problem], else all.
    """
    rng = np.random.default_rng(seed)
    keys = pd.MultiIndex.from_product(
        [
            networks,
            [f"p{i:03d}" for i in range(n)],
            ("model", "untrained", "early"),
            ("response", "answer"),
            range(LAYERS),
        ],
        names=["paradigm", "problem_id", "subject", "scope", "layer"],
    )
    table = keys.to_frame(index=False)

    def of(planted: Mapping[str, np.ndarray]) -> np.ndarray:
        """What is planted in the models and their texts, row by row."""
        cells = zip(table["paradigm"], table["subject"], table["layer"], strict=True)
        made = texts or {}
        return np.array(
            [
                (planted[name][layer] if subject == "model" else 0.0) + made.get(name, FLAT)[layer]
                for name, subject, layer in cells
            ]
        )

    norm = (1 + table["layer"].to_numpy()) * np.exp(0.05 * rng.normal(size=len(table)))
    more = of(networks) + 0.02 * rng.normal(size=len(table))
    active = of(features or networks) + 0.02 * rng.normal(size=len(table))
    correct = np.ones(len(table))
    for name, shares in (right or {}).items():
        own = (table["paradigm"] == name).to_numpy()
        correct[own] = np.repeat(shares, own.sum() // n)
    return table.assign(
        correct=correct,
        norm_no_think=norm,
        norm_think=norm * np.exp(more),
        z_no_think=0.2 * norm,
        z_think=0.2 * norm * np.exp(more + 3 * active),
    )
