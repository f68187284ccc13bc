"""Claims judged on other networks in the model's place: random ones, its untrained twin, its early checkpoint, planted.

In null i a random network stands in for the model, and the next two for its untrained twin and its early checkpoint.
Nothing distinguishes the three: whatever a claim finds there is not reasoning, so each may be supported as often as
chance allows, and no more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from normprobe.audit.networks import (
    AuditInputs,
    Dictionaries,
    Passage,
    Reading,
    random_dictionaries,
    read,
    trained_dictionaries,
    write_tables,
)
from normprobe.audit.planted import LEARNING, REASONING, amplitudes, plant
from normprobe.claims.evidence import Evidence
from normprobe.claims.high_norm_is_causal import CONTROLS, HIGH, PLAIN
from normprobe.claims.measure.readers import MODEL
from normprobe.claims.registry import BY_NAME, evaluate_all
from normprobe.config import SaeSettings
from normprobe.models.model import OpenModel
from normprobe.models.open import open_for
from normprobe.saes.stages import load_reader
from normprobe.saes.training import generator_for
from normprobe.tracing.trace import replay

STAND_INS = ("model", "untrained", "early")
PLAIN_ACCURACY, SUPPRESSED, PLANTED = 0.9, 0.6, 0.05


def judge_nulls(trained: bool, numbers: range, inputs: AuditInputs) -> list[dict[str, Any]]:
    """For each of these nulls, a row per claim that could be judged.

    trained: the networks' dictionaries are trained on their own states, else random.
    """
    n, seed, settings, layers = inputs.study.audit.problems, inputs.study.seed, inputs.saes, inputs.layers
    opened, passage = inputs.open(), Passage.of(inputs, n, n, 2 * n if trained else 0)

    def reading(index: int, before: Sequence[Reading]) -> Reading:
        """Network `index` with its own dictionaries, also as a control of the networks read `before` it."""
        key = ("audit", seed, "trained" if trained else "random", index)
        network = opened.fresh(int(np.random.default_rng([seed, trained, index]).integers(2**31)))
        random = random_dictionaries(network, layers, settings, *key, "control")
        if trained:
            own = trained_dictionaries(network, passage, layers, settings, *key)
        else:
            own = random_dictionaries(network, layers, settings, *key, "own")
        sizes = {name: of.sizes for name, of in zip(STAND_INS[1:], reversed(before), strict=False)}
        return read(network, passage, own, random, sizes)

    rows: list[dict[str, Any]] = []
    window: list[Reading] = []
    for index in numbers:
        while len(window) < len(STAND_INS):
            window.append(reading(index + len(window), window))
        rng = np.random.default_rng([seed, trained, index, 1])
        suppression = _simulated_suppression(passage, rng, high_norm=SUPPRESSED)
        model, *others = window
        stand_ins = {name: of.control_of(name) for name, of in zip(STAND_INS[1:], others, strict=True)}
        found = _judged(passage, {"model": model, **stand_ins}, suppression, seed + index)
        rows += [{"null": index, "trained": trained} | row for row in found]
        window.pop(0)
    return rows


def judge_in_place(subject: str, inputs: AuditInputs) -> list[dict[str, Any]]:
    """A row per claim that can be judged with `subject` in the model's place, reading the model's responses; none
    for a run without that subject.

    Its untrained control is the run's twin; the twin's own is another random network with dictionaries trained in the
    same way. Claims that need an early checkpoint or generated answers are left out.
    """
    study, seed, settings, saes = inputs.study, inputs.study.seed, inputs.saes, inputs.run / "saes"
    network = twin = inputs.open().untrained(seed)
    if subject == "early":
        if study.model.early_checkpoint is None:
            return []
        network = open_for(study.model.early_checkpoint, study.thinking)
    passage = inputs.whole(2 * study.audit.problems)
    if subject == "untrained":
        twin = network.fresh(seed + 1)
        key = ("audit", seed, "twin of the twin")
        of_twin = trained_dictionaries(twin, passage, inputs.layers, settings, *key)
    else:
        of_twin = load_reader(saes, "untrained", twin)
    model = _read(network, passage, load_reader(saes, subject, network), settings, seed)
    untrained = _read(twin, passage, of_twin, settings, seed, {subject: model.sizes}).control_of(subject)
    return _judged(passage, {"model": model, "untrained": untrained}, None, seed)


def judge_planted(inputs: AuditInputs) -> list[dict[str, Any]]:
    """A row per claim, each on the planted model that has its effect (`Claim.planted`): "reasoning" or "learning".

    Only the suppression table is drawn instead of measured, with a planted loss.
    """
    opened, passage, seed = inputs.open(), inputs.whole(0), inputs.study.seed
    width, n_layers = opened.identity.d_model, opened.identity.n_layers
    shape = SaeSettings(width=width, k=min(inputs.k, width))
    controls = {name: opened.fresh(seed + offset) for name, offset in (("untrained", 1), ("early", 2))}
    options = {"memory": passage.memory, "lens_tokens": passage.lens_tokens, "progress": False}
    surprisal = replay(controls["early"], passage.responses, **options)["surprisal"]
    models = {}
    for name, effects in (("reasoning", REASONING), ("learning", LEARNING)):
        amplitude = amplitudes(passage, surprisal, n_layers, effects)
        model, own = plant(opened, passage, amplitude, generator_for("audit", seed, name))
        models[name] = _read(model, passage, own, shape, seed)
    sizes = {name: model.sizes for name, model in models.items()}
    readings = {}
    for name, network in controls.items():
        own = random_dictionaries(network, range(n_layers), shape, "audit", seed, name)
        readings[name] = _read(network, passage, own, shape, seed, sizes)
    found = []
    for name, model in models.items():
        with_model = {"model": model} | {of: reading.control_of(name) for of, reading in readings.items()}
        suppression = _simulated_suppression(passage, np.random.default_rng([seed, 2]), high_norm=PLANTED)
        rows = _judged(passage, with_model, suppression, seed)
        found += [row for row in rows if BY_NAME[row["claim"]].planted == name]
    return found


def _simulated_suppression(passage: Passage, rng: np.random.Generator, *, high_norm: float) -> pd.DataFrame:
    """Independent answers in the columns of experiments/suppression.parquet: a network that only reads gives none.

    The share of right ones is 90 % for plain, 60 % for every control, and `high_norm` where high-norm states are
    suppressed (60 %: it makes no difference which states are suppressed).
    """
    problems = passage.problems.loc[passage.problems["split"] == "measure", "problem_id"]
    shares = {PLAIN: PLAIN_ACCURACY, HIGH: high_norm, **dict.fromkeys(CONTROLS, SUPPRESSED)}
    treatments = [
        pd.DataFrame(
            {
                "problem_id": problems,
                "treatment": treatment,
                "mode": "think",
                "factor": 0.1,
                "correct": pd.array(rng.random(len(problems)) < share, dtype="boolean"),
                "n_tokens": 20,
                "n_suppressed": 0 if treatment == PLAIN else 6,
                "delta_norm": 1.0,
            }
        )
        for treatment, share in shares.items()
    ]
    return pd.concat(treatments, ignore_index=True)


def _read(
    network: OpenModel,
    passage: Passage,
    own: Dictionaries,
    settings: SaeSettings,
    seed: int,
    sizes: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Reading:
    random = random_dictionaries(network, sorted(own), settings, "audit", seed, network.identity.weights)
    return read(network, passage, own, random, sizes)


def _judged(
    passage: Passage, readings: Mapping[str, Reading], suppression: pd.DataFrame | None, seed: int
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="normprobe-audit-") as name:
        tables = write_tables(Path(name), passage, readings, suppression)
        return [
            _finding(evidence)
            for evidence in evaluate_all(tables, seed, Path(name) / "evidence", allow_failed=True)
        ]


def _finding(evidence: Evidence) -> dict[str, Any]:
    """One judged claim as a row of plain JSON; layerwise: the paper's own statistic, where the claim shows it."""
    written = evidence.to_dict()
    decision = written["decision"]
    paper = (BY_NAME[evidence.claim].paper_form or None, MODEL)
    return {
        **{key: written[key] for key in ("claim", "verdict", "estimate", "unit", "interval")},
        **{key: decision[key] for key in ("margin", "smallest_effect")},
        "margin_interval": decision["interval"],
        "layerwise": next((c.estimate for c in evidence.controls if (c.form, c.name) == paper), None),
    }
