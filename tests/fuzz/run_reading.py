"""What of a run is read: its layer profile, verdicts, audit and manifest, tables and arrays."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzz.hostile import Files
from fuzz.reader import as_json


def profiles() -> list[Files]:
    from profile_fixture import profile

    content = asdict(profile()) | {
        "model": {"name": "org/A", "weights": "12", "n_layers": 3, "d_model": 4, "vocab": 9}
    }
    both = content | {
        "quantiles": content["quantiles"] | {"no_think": content["quantiles"]["think"]},
        "spike_onset": 2,
    }
    return [{"layer_profile.json": as_json(value)} for value in (content, both)]


def read_profile(folder: Path) -> None:
    from normprobe.layer_profile import LayerProfile
    from normprobe.policies.spec import build

    profile = LayerProfile.load(folder / "layer_profile.json")
    profile.for_model({"name": "org/A", "weights": "12", "n_layers": 3})
    build([{"policy": "alrr"}, {"policy": "probe"}], profile)
    profile.save(folder / "layer_profile.json")


def run_files() -> list[Files]:
    from normprobe.claims.evidence import Control, Decision, Evidence
    from normprobe.runs.directory import SCHEMA, StageLabel

    controls = (
        Control("whole", "untrained twin", True, float("nan"), (0.0, float("inf"))),
        Control("", "early checkpoint", True, 0.25, (0.1, 0.5), "share"),
    )
    decision = Decision(0.25, (0.1, 0.4), 0.1, "whole", "untrained twin", (("whole", "random"),), 0.01)
    verdicts = [
        Evidence(
            claim=claim, version=2, statement="s", verdict=verdict, reason="", rule="r", form="whole", estimate=0.5,
            unit="u", interval=(0.1, 0.9), n=7, n_unit="problems", controls=controls, decision=decision, seed=3,
            note="n",
        ).to_dict()
        for claim, verdict in (("late_spike", "supported"), ("assumptions", "vacuous"))
    ]  # fmt: skip
    row = {
        "claim": "late_spike",
        "verdict": "supported",
        "estimate": 0.1,
        "layerwise": None,
        "trained": False,
    }
    covered = {"claim": "late_spike", "covered": 0.95, "constant": False, "power_margin": 0.2, "margin": -0.1}
    audit = {
        "nulls": [row],
        "planted": [row],
        "coverage": [covered],
        "subject-early": [row],
        "subject-untrained": [],
    }
    labels = {name: StageLabel(name, 1, {"seed": 0}, {}) for name in ("evidence", "audit")}
    manifest = {
        "schema": SCHEMA,
        "identities": {"model": {"name": "m"}},
        "stages": {n: one.key for n, one in labels.items()},
    }
    stages = {
        f"{name}/stage.json": as_json(
            {"schema": SCHEMA, **asdict(one), "key": one.key, "work": 3.0, "seconds": 2.0}
        )
        for name, one in labels.items()
    }
    return [
        {
            "manifest.json": as_json(manifest),
            "evidence/verdicts.json": as_json(verdicts),
            "evidence/skipped.json": as_json(
                [{"claim": "methods_help", "statement": "s", "reason": "no table"}]
            ),
            "audit/audit.json": as_json(audit),
            **stages,
        }
    ]


def read_run(folder: Path) -> None:
    from normprobe.report.audit_results import Audit
    from normprobe.report.document import run_document
    from normprobe.report.terminal import terminal_text
    from normprobe.runs.directory import Run

    run = Run.load(folder)
    run.rate("evidence")
    terminal_text(folder)
    run_document(folder)
    Audit.load(folder).text()


def tables() -> list[Files]:
    import numpy as np
    import pandas as pd
    from safetensors.numpy import save

    from normprobe.runs.layout import FILES

    def parquet(name: str, **cells: Any) -> bytes:
        neutral: dict[str, Any] = {
            "text": "a",
            "integer": 1,
            "number": 0.5,
            "flag": True,
            "any": 0,
            "integers": [1, 2, 3],
        }
        schema = FILES[name].columns
        assert schema is not None
        rows = [
            {key: neutral[column.kind] for key, column in schema.by_name.items()} | cells for _ in range(3)
        ]
        out = io.BytesIO()
        pd.DataFrame(rows).to_parquet(out, index=False)
        return out.getvalue()

    norms = {"norm": np.ones((2, 3), np.float32), "surprisal": np.ones(3, np.float32)}
    return [
        {
            FILES["responses"].path: parquet("responses", n_prompt=1, thought_start=1, thought_end=2),
            FILES["tokens"].path: parquet("tokens", role="copied"),
            FILES["signals/model"].path: save(norms),
        }
    ]


def read_tables(folder: Path) -> None:
    from normprobe.runs.tables import Tables

    tables = Tables(folder)
    _ = tables.responses
    tables.has("roles")
    tables.signals("model")
