"""All claims in the paper's order, and their evaluation on one run."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np

from normprobe.claims import (
    assumptions,
    domain_and_difficulty,
    entropies_do_not,
    hard_tokens_grow_norm,
    high_norm_is_causal,
    late_spike,
    marks_critical_steps,
    methods_help,
    norm_tracks_features,
    thinking_norm_is_higher,
    two_sided_bound,
)
from normprobe.claims.evidence import Evidence
from normprobe.claims.measure import signal_comparison
from normprobe.claims.measure.judgement import Resampling
from normprobe.claims.measure.measured import NotJudged
from normprobe.runs.tables import Tables

CLAIMS: tuple[ModuleType, ...] = (
    late_spike,
    thinking_norm_is_higher,
    norm_tracks_features,
    entropies_do_not,
    assumptions,
    two_sided_bound,
    marks_critical_steps,
    high_norm_is_causal,
    domain_and_difficulty,
    hard_tokens_grow_norm,
    methods_help,
)


def evaluate_all(tables: Tables, seed: int, directory: Path) -> list[Evidence]:
    """Judge every claim whose tables the run has, and write what was found into `directory` (made if missing).

    Written: `verdicts.json` (a list of `Evidence.to_dict()`), `{claim}.parquet` (the series that its panel draws),
    `skipped.json` (a list of {claim, statement, reason} of the claims left out) and, where the run allows it,
    `signals.parquet` (`compare_signals`). Each claim draws from a generator of its own, keyed by seed and name, so its
    numbers do not depend on which other claims ran.
    """
    directory.mkdir(parents=True, exist_ok=True)
    judged: list[Evidence] = []
    skipped: list[dict[str, str]] = []
    for claim in CLAIMS:
        if missing := sorted(need for need in claim.NEEDS if not tables.has(need)):
            reason = f"it needs {', '.join(missing)}, which this run does not have"
            skipped.append({"claim": claim.NAME, "statement": claim.STATEMENT, "reason": reason})
            continue
        resample = _resampling(seed, claim.NAME)
        try:
            evidence, series = claim.evaluate(tables, resample, seed)
        except NotJudged as lacking:
            skipped.append({"claim": claim.NAME, "statement": claim.STATEMENT, "reason": str(lacking)})
            continue
        series.to_parquet(directory / f"{claim.NAME}.parquet", index=False)
        judged.append(evidence)
    if all(tables.has(need) for need in signal_comparison.NEEDS):
        with suppress(NotJudged):
            compared = signal_comparison.compare_signals(tables, _resampling(seed, signal_comparison.NAME))
            compared.to_parquet(directory / f"{signal_comparison.NAME}.parquet", index=False)
    _write_json(directory / "verdicts.json", [evidence.to_dict() for evidence in judged])
    _write_json(directory / "skipped.json", skipped)
    return judged


def _resampling(seed: int, name: str) -> Resampling:
    return Resampling(np.random.default_rng([seed, zlib.crc32(name.encode())]))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
