"""Null networks: random networks that read what the model wrote. Whatever a claim finds in them is not reasoning.

In null i a random network stands in for the model, and the next two for its untrained twin and its early checkpoint.
Nothing distinguishes the three, so each claim may be supported as often as chance allows, and no more. Their
dictionaries are random, or trained on each network's own states.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normprobe.audit.networks import (
    Passage,
    Reading,
    random_dictionaries,
    read,
    trained_dictionaries,
    write_tables,
)
from normprobe.audit.simulated import SUPPRESSED, simulated_suppression
from normprobe.claims.evidence import Evidence
from normprobe.claims.measure.readers import MODEL
from normprobe.claims.registry import BY_NAME, evaluate_all
from normprobe.config import SaeSettings
from normprobe.models.model import OpenModel

STAND_INS = ("model", "untrained", "early")


@dataclass(frozen=True)
class NullStudy:
    """Null networks of one run's architecture. `seed` keys every network, dictionary and resample."""

    opened: OpenModel
    passage: Passage
    layers: list[int]
    settings: SaeSettings
    trained: bool
    seed: int

    def reading(self, index: int) -> Reading:
        """Network `index` with its own dictionaries."""
        key = ("audit", self.seed, "trained" if self.trained else "random", index)
        network = self.opened.fresh(
            int(np.random.default_rng([self.seed, self.trained, index]).integers(2**31))
        )
        random = random_dictionaries(network, self.layers, self.settings, *key, "control")
        if self.trained:
            own = trained_dictionaries(network, self.passage, self.layers, self.settings, *key)
        else:
            own = random_dictionaries(network, self.layers, self.settings, *key, "own")
        return read(network, self.passage, own, random)

    def nulls(self, first: int, last: int) -> Iterator[list[dict[str, Any]]]:
        """For each of the nulls first … last − 1, a row per claim that could be judged."""
        window: list[Reading] = []
        for index in range(first, last):
            while len(window) < len(STAND_INS):
                window.append(self.reading(index + len(window)))
            yield self._findings(index, dict(zip(STAND_INS, window, strict=True)))
            window.pop(0)

    def _findings(self, index: int, readings: dict[str, Reading]) -> list[dict[str, Any]]:
        rng = np.random.default_rng([self.seed, self.trained, index, 1])
        with tempfile.TemporaryDirectory(prefix="normprobe-null-") as name:
            tables = write_tables(
                Path(name),
                self.passage,
                readings,
                simulated_suppression(self.passage, rng, high_norm=SUPPRESSED),
            )
            judged = evaluate_all(tables, seed=self.seed + index, directory=Path(name) / "evidence")
        return [{"null": index, "trained": self.trained} | finding(evidence) for evidence in judged]


def finding(evidence: Evidence) -> dict[str, Any]:
    """One judged claim as a row of plain JSON; layerwise: the paper's own statistic, where the claim shows it."""
    written = evidence.to_dict()
    decision: dict[str, Any] = evidence.decision.to_dict()
    paper = (BY_NAME[evidence.claim].paper_form or None, MODEL)
    return {
        **{key: written[key] for key in ("claim", "verdict", "estimate", "unit", "interval")},
        **{key: decision[key] for key in ("margin", "smallest_effect")},
        "margin_interval": decision["interval"],
        "layerwise": next((c.estimate for c in evidence.controls if (c.form, c.name) == paper), None),
    }
