"""A finished run with planted numbers: the claims' fixture, completed by what reports and figures read besides.

The numbers are invented, and only tests see them. The claims judge them with their own code, so panels draw real
series.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims_fixture import LAYERS, READERS, Effects, write_run
from layout_fixture import put
from paradigm_fixture import GRADUAL, SHARP, curves

from normprobe.claims.methods_help import BASELINES, LRS
from normprobe.claims.registry import evaluate_all
from normprobe.runs.atomic import atomic_write_json
from normprobe.runs.directory import SCHEMA, Run, StageLabel
from normprobe.runs.tables import Tables

DOMAINS = ("arithmetic", "boolean", "pointers", "recall")


def write_finished_run(
    path: Path, seed: int = 0, *, roles: bool = True, suppression: bool = True, methods: bool = True
) -> Path:
    """Make `path` a run with a manifest, every table that the claims, the report and the figures read, and evidence."""
    rng = np.random.default_rng(seed)
    run = Run.open(path, {"model": {"name": "toy"}, "seed": seed})
    run.identify(model={"name": "toy", "n_layers": LAYERS, "weights_hash": "0" * 12})
    write_run(
        path, Effects(thinking_norm=0.3, critical=0.5, causal=0.5), seed=seed, n_problems=20, roles=roles
    )
    tokens = pd.read_parquet(path / "traces" / "tokens.parquet")
    problems = made_problems(tokens)
    put(path, "problems", problems)
    put(path, "responses", made_responses(tokens, rng))
    put(path, "sums", _sums(problems, rng))
    put(path, "pairs", _pairs(problems, rng))
    put(path, "dictionary", _dictionary(rng))
    if methods:
        _dictionaries(path)
    _audit(path, rng)
    put(path, "profile", {"chosen_layers": [6]})
    put(path, "published_profile", {"chosen_layers": [6]})
    if methods:
        _methods(path, problems["problem_id"].tolist(), rng)
        put(path, "paradigm", curves({"RL": SHARP, "SFT": GRADUAL}, n=12))
    if not suppression:
        shutil.rmtree(path / "experiments")
    finish(run)
    evaluate_all(Tables(path), seed, path / "evidence")
    finish(run)
    return path


def finish(run: Run, settings: Mapping[str, Mapping[str, Any]] = {}) -> None:
    """Label every folder of a run as a finished stage. settings: stage → what it was made with, else nothing."""
    for folder in filter(Path.is_dir, run.path.iterdir()):
        label = StageLabel(folder.name, 1, settings.get(folder.name, {}), {})
        atomic_write_json(folder / "stage.json", {"schema": SCHEMA, **asdict(label), "key": label.key})
        run.expect({label.name: label.key})


def _methods(path: Path, ids: list[str], rng: np.random.Generator) -> None:
    """What `normprobe evaluate` leaves, with two settings and a handful of selectors."""

    def rows(column: str, names: list[str], **more: Any) -> pd.DataFrame:
        keys = pd.MultiIndex.from_product([names, ids], names=[column, "problem_id"]).to_frame(index=False)
        right = pd.array(rng.random(len(keys)) < 0.7, dtype="boolean")
        return keys.assign(correct=right, **more)

    cost = {"rates": '{"6": 0.1, "7": 0.3}', "extra_passes": 0.02, "extra_flops": 0.02, "seconds": 1.5}
    names = ["plain", *(name for method in BASELINES for name in (method, *BASELINES[method]))]
    treatments = rows("treatment", names, n_tokens=20, **cost)
    answers = np.where(rng.random(len(treatments)) < 0.1, "", "7")
    tried = {"n": 20, "plain": 0.7, "gained": 3, "lost": 2, "rates": cost["rates"], "trigger_rate": 0.2}
    settings = [
        {"regime": regime, "method": method, "name": f"{method}: layers 6–7", "accuracy": 0.75, **tried}
        for regime in ("easy", "hard")
        for method in ("ALRR", "ERSS")
    ]
    knobs = [s | {"knob": s["method"], "value": value} for s in settings for value in (0.0, 1.5)]
    for name, table in (
        ("method_treatments", treatments.assign(answer=answers)),
        ("selection", rows("selector", ["random", LRS, "majority", "oracle"])),
        ("sweep", pd.DataFrame(settings)),
        ("confirmed", pd.DataFrame(settings[:1])),
        ("sensitivity", pd.DataFrame(knobs)),
        ("combinations", rows("combination", ["plain, greedy", "ALRR + LRS"])),
    ):
        put(path, name, table)


def _audit(path: Path, rng: np.random.Generator) -> None:
    """audit/audit.json with two claims."""
    row = {"verdict": "not supported", "estimate": 0.1, "unit": "u", "interval": [0.0, 0.2], "margin": -0.1}
    row |= {"smallest_effect": 0.1, "margin_interval": [-0.2, 0.0], "layerwise": None}
    claims = ("norm_tracks_features", "late_spike")
    nulls = [
        row
        | {"null": i, "trained": i > 5, "claim": claim, "estimate": rng.normal()}
        | {"layerwise": rng.normal()}
        for i in range(8)
        for claim in claims
    ]
    covered = {"margin": -0.1, "n": 20, "samples": 1000, "covered": 0.951, "constant": False}
    covered |= {"smallest_effect": 0.1, "power_margin": 0.2}
    planted = [row | {"claim": claim, "verdict": "supported"} for claim in claims]
    content = {
        "plan": {"nulls": 6, "trained": 2},
        "nulls": nulls,
        "planted": planted,
        "coverage": [covered | {"claim": claim} for claim in claims],
        "subject-untrained": [row | {"claim": claims[0]}],
        "subject-early": [],
    }
    put(path, "audit", content)


def made_problems(tokens: pd.DataFrame) -> pd.DataFrame:
    table = tokens[["problem_id", "split"]].drop_duplicates(ignore_index=True)
    numbers = np.arange(len(table))
    return table.assign(
        domain=[DOMAINS[i % 4] for i in numbers],
        difficulty=1 + numbers // 4 % 4,
        question=[f"what is {i} + 7 ?" for i in numbers],
        answer="7",
    )


def made_responses(tokens: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """One row per response of the traces."""
    by_response = tokens.groupby(["response_id", "problem_id", "split", "mode"], sort=False)
    table = by_response.agg(token_ids=("token_id", list)).reset_index()
    right = table["mode"].map({"think": 0.95, "no_think": 0.4, "filler": 0.5})
    return table.assign(
        n_prompt=2,
        sample=0,
        finish="stop",
        truncated=False,
        leaked=False,
        asked="documented",
        correct=rng.random(len(table)) < right,
    )


def _sums(problems: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    kept = problems[["problem_id", "split"]]
    keys = pd.MultiIndex.from_product(
        [
            READERS,
            kept["problem_id"],
            range(LAYERS),
            ("response",),
            ("think", "no_think"),
            ("reasoning", "plus"),
        ],
        names=["reader", "problem_id", "layer", "scope", "mode", "feature_set"],
    )
    table = keys.to_frame(index=False).merge(kept, on="problem_id")
    thinks = (table["mode"] == "think").to_numpy()
    real, late = (table["reader"] == "model").to_numpy(), (table["layer"] >= 6).to_numpy()
    scale, noise = 1 + table["layer"].to_numpy() * 0.3, rng.gamma(30, 1 / 30, len(table))
    share = 0.02 + 0.5 * thinks * (0.3 + real * late)
    table["n_tokens"] = 13.0
    table["z_sum"] = scale * share * noise
    table["z_l1_active"] = np.where(thinks, 5, 3)
    table["h_sq"] = (scale * (1 + 0.3 * thinks * (0.3 + real * late))) ** 2 * noise
    table["h_sq_mean"] = table["h_sq"] * 1.05
    table["norm_mean"] = np.sqrt(table["h_sq"])
    table["rpart_sq"] = (table["z_sum"] ** 2) * 0.4
    table["b_sq"] = (table["h_sq"] - table["rpart_sq"]).clip(lower=0.1)
    table["br"] = 0.02 * np.sqrt(table["b_sq"] * table["rpart_sq"])
    table["r_sq"] = 0.002 * table["h_sq"]
    table["r_sq_mean"] = 0.003 * table["h_sq_mean"]
    return table


def _pairs(problems: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    kept = problems[["problem_id", "split"]]
    keys = pd.MultiIndex.from_product(
        [READERS, kept["problem_id"], range(LAYERS), ("response",), ("reasoning", "plus")],
        names=["reader", "problem_id", "layer", "scope", "feature_set"],
    )
    table = keys.to_frame(index=False).merge(kept, on="problem_id")
    n = len(table)
    return table.assign(
        s=rng.gamma(20, 0.05, n), k_delta=5, k_think=5, leak=rng.uniform(0.01, 0.06, n),
        overlap=rng.uniform(0.0, 0.2, n), negative_share=rng.uniform(0, 0.3, n),
    )  # fmt: skip


def _dictionaries(path: Path) -> None:
    """What `normprobe dictionaries` leaves: every number with its control."""
    keys = itertools.product(("model", "random", "untrained"), range(LAYERS), ("think", "no_think"))
    table = pd.DataFrame(keys, columns=["reader", "layer", "mode"])
    own = (table["reader"] == "model").to_numpy()
    fidelity = table.assign(
        r2=np.where(own, 0.95, 0.2), l0=16.0, frac_alive=0.9, loss_recovered=np.where(own, 0.99, np.nan),
        ce_loss_without_sae=0.1, ce_loss_with_sae=np.where(own, 0.2, 3.0), ce_loss_with_mean=8.0,
        ce_loss_with_ablation=7.0, kl_div_with_sae=0.01,
    )  # fmt: skip
    put(path, "fidelity", fidelity)
    features = itertools.product(("model_again_1", "random"), range(LAYERS), range(4))
    stability = pd.DataFrame(features, columns=["compared_with", "layer", "feature"])
    random = stability["compared_with"] == "random"
    cosine = np.where(random, 0.25, np.where(stability["feature"] < 2, 0.9, 0.5))
    put(path, "stability", stability.assign(selected=stability["feature"] == 0, cosine=cosine))


def _dictionary(rng: np.random.Generator) -> pd.DataFrame:
    table = pd.DataFrame(itertools.product(READERS, range(LAYERS)), columns=["reader", "layer"])
    n = len(table)
    return table.assign(
        d=128, width=1024, n_selected=5, mean_abs_cos=rng.uniform(0.06, 0.08, n), max_abs_cos=rng.uniform(0.4, 0.6, n),
        mu_selected=rng.uniform(0.1, 0.2, n), mu_minus_selected=rng.uniform(0.05, 0.1, n),
        c_star_selected=rng.uniform(0.1, 0.2, n), r2=np.where(table["reader"] == "random", 0.3, 0.96),
        eps_mean=rng.uniform(0.04, 0.1, n),
    )  # fmt: skip
