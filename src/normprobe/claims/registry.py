"""All claims in the paper's order, and the files in which a run keeps what was found on them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from normprobe import claims
from normprobe.claims.claim import Claim
from normprobe.claims.conditions import failures, measure_conditions
from normprobe.claims.evidence import Evidence
from normprobe.claims.measure import signal_comparison
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.runs.atomic import atomic_write_json
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables


def _discover() -> tuple[Claim, ...]:
    """The `CLAIM` of every module of this folder that has one, by `order`."""
    names = (module.name for module in pkgutil.iter_modules(claims.__path__, f"{claims.__name__}."))
    modules = [importlib.import_module(name) for name in names if name != __name__]
    found = [module.CLAIM for module in modules if hasattr(module, "CLAIM")]
    return tuple(sorted(found, key=lambda claim: claim.order))


CLAIMS: tuple[Claim, ...] = _discover()
BY_NAME = {claim.name: claim for claim in CLAIMS}


def evaluate_all(
    tables: Tables, seed: int, directory: Path, unchanged: Collection[str] = (), *, allow_failed: bool = False
) -> list[Evidence]:
    """Judge every claim on a run, compare its signals and write it all into `directory` (made if missing).

    unchanged: names whose files are there already. allow_failed: judge also what rests on failed conditions.
    """
    directory.mkdir(parents=True, exist_ok=True)
    failed: Mapping[str, str] = {}
    if tables.has("responses"):
        conditions = measure_conditions(tables.responses)
        conditions.to_parquet(directory / FILES["conditions"].name, index=False)
        failed = failures(conditions)
    for claim in CLAIMS:
        if claim.name not in unchanged:
            rests_on = "; ".join(line for mode, line in failed.items() if mode in claim.modes)
            write_claim(claim, tables, seed, directory, failed=rests_on, allow_failed=allow_failed)
    if signal_comparison.NAME not in unchanged:
        write_signals(tables, seed, directory)
    return write_verdicts(directory)


def write_claim(
    claim: Claim, tables: Tables, seed: int, directory: Path, *, failed: str = "", allow_failed: bool = False
) -> None:
    """Judge one claim and write `{name}.json` (`Evidence.to_dict`) and `{name}.parquet` (its series).

    A claim that the run has too little for leaves only the JSON: {claim, statement, reason}; so does one that rests on
    conditions that have failed, unless they are allowed.
    """
    try:
        if failed and not allow_failed:
            raise NotMeasurable(f"{failed} (--allow-failed-conditions judges it nevertheless)")
        evidence, series = claim.judge(tables, _resampling(seed, claim.name), seed)
        evidence = replace(evidence, allowed=failed)
    except NotMeasurable as lacking:
        skipped = {"claim": claim.name, "statement": claim.statement, "reason": str(lacking)}
        atomic_write_json(directory / f"{claim.name}.json", skipped)
        return
    series.to_parquet(directory / f"{claim.name}.parquet", index=False)
    atomic_write_json(directory / f"{claim.name}.json", evidence.to_dict())


def write_signals(tables: Tables, seed: int, directory: Path) -> None:
    """Compare the signals (`compare_signals`) and write `signals.parquet`, if the run has what that needs."""
    if all(tables.has(need) for need in signal_comparison.NEEDS):
        with suppress(NotMeasurable):
            compared = signal_comparison.compare_signals(tables, _resampling(seed, signal_comparison.NAME))
            compared.to_parquet(directory / f"{signal_comparison.NAME}.parquet", index=False)


def write_verdicts(directory: Path) -> list[Evidence]:
    """Gather the claims' JSON files into the lists `verdicts.json` and `skipped.json`; returns the evidence."""
    paths = [directory / f"{claim.name}.json" for claim in CLAIMS]
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    verdicts = [entry for entry in entries if "verdict" in entry]
    atomic_write_json(directory / "verdicts.json", verdicts)
    atomic_write_json(directory / "skipped.json", [entry for entry in entries if "verdict" not in entry])
    return [Evidence.from_dict(entry) for entry in verdicts]


def _resampling(seed: int, name: str) -> Resampling:
    """Keyed by seed and name, so that a claim's draws do not depend on which other claims are judged."""
    return Resampling(np.random.default_rng([seed, zlib.crc32(name.encode())]))
