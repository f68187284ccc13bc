"""Coverage of the intervals and power of the claims, from samples of a finished run's own problems.

The run's measured problems are taken as the population, whose margin is known. Samples as large as the run are drawn
from it, each is bootstrapped as a run is, and coverage is the share of their intervals that hold the known margin. If
every margin were larger by Δ, the ends of its interval would be too: the smallest margin that is found with 90 % power
therefore follows from the spread of the lower ends.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from normprobe.claims.evidence import Evidence
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling, interval
from normprobe.stats.bootstrap import bootstrap_weights

SAMPLES, SAMPLES_AT_ONCE, DRAWS = 1000, 25, 500
POWER = 0.9


@dataclass(frozen=True)
class Nested(Resampling):
    """Weights of the problems in samples and in resamples of the samples.

    Row 0 is the population; then come blocks of `DRAWS` + 1 rows, a sample followed by its resamples. `draws` generates
    them; `rng` is kept for whatever else a claim draws.
    """

    draws: np.random.Generator
    samples: int

    def __call__(self, n_problems: int) -> Float[np.ndarray, "draw problem"]:
        rows = [np.ones((1, n_problems))]
        for sample in bootstrap_weights(n_problems, self.samples, self.draws):
            again = self.draws.multinomial(n_problems, sample / n_problems, size=DRAWS)
            rows += [sample[None], again.astype(np.float64)]
        return np.vstack(rows)


@dataclass(frozen=True)
class Coverage:
    """One claim at the run's own n. covered: share of the samples whose 95 % interval holds the population's margin.

    constant: no sample's margin differs, so the interval covers nothing; power_margin: the smallest margin
    that is `supported` with 90 % power, in the estimate's unit.
    """

    claim: str
    margin: float
    n: int
    samples: int
    covered: float
    constant: bool
    smallest_effect: float
    power_margin: float


def coverage(
    name: str, evaluate: Callable[[Resampling], Evidence], seed: int, samples: int = SAMPLES
) -> Coverage | None:
    """Coverage and power of the claim that `evaluate` judges; None if it cannot be judged or a control is missing."""
    ends: list[tuple[float, float]] = []
    evidence = None
    for start in range(0, samples, SAMPLES_AT_ONCE):
        # What else a claim draws (a split of the problems) belongs to the population: it is the same every time.
        key = [seed, zlib.crc32(name.encode())]
        nested = Nested(
            np.random.default_rng(key),
            np.random.default_rng([*key, start]),
            min(SAMPLES_AT_ONCE, samples - start),
        )
        try:
            evidence = evaluate(nested)
        except NotMeasurable:
            return None
        if evidence.decision.missing:
            return None
        ends += map(interval, evidence.decision.draws[1:].reshape(-1, DRAWS + 1))
    assert evidence is not None
    decision = evidence.decision
    low, high = np.array(ends).T
    return Coverage(
        claim=name,
        margin=decision.margin,
        n=evidence.n,
        samples=len(low),
        covered=float(((low <= decision.margin) & (decision.margin <= high)).mean()),
        constant=bool((low == high).all()),
        smallest_effect=decision.smallest_effect,
        power_margin=decision.smallest_effect + decision.margin - float(np.quantile(low, 1 - POWER)),
    )
