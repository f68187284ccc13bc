"""A run whose text, of a model, of a user's problems and of their names, tries to become markup, script or formula."""

import json
from pathlib import Path

import pandas as pd
from layout_fixture import put
from run_fixture import finish

from normprobe.runs.directory import Run
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables

HOSTILE = (
    "</script><script>window.owned=1</script>",
    '"><img src=x onerror="window.owned=1">',
    "<svg/onload=window.owned=1>",
    "javascript:window.owned=1",
    "<a href='javascript:window.owned=1'>{{7*7}}${window.owned=1}</a>",
    "<style>@import url(https://example.org/x.css);*{display:none}</style>",
    '<link rel=stylesheet href=//example.org/x.css><iframe src="//example.org"></iframe>',
    "\u2028window.owned=1\u2029",
    "\u202eright to left\u202d\u2067",
    "\x00null\x08\x1b[31m",
    "<!--<script>",
    "]]>&lt;b&gt;&#60;",
    "long" * 500,
    "深い思考 🤔",
    '=HYPERLINK("https://example.org","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1:A9)",
)


def poison(run: Path) -> None:
    """Put hostile text wherever a run holds text of a model, of a user's problems or of their names."""
    about = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    about["identities"]["model"]["name"] = "".join(HOSTILE[:4]) + "\u202e"
    (run / "manifest.json").write_text(json.dumps(about), encoding="utf-8")
    path = run / "evidence" / "verdicts.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    for i, entry in enumerate(entries):
        entry["note"] = HOSTILE[i % len(HOSTILE)]
    path.write_text(json.dumps(entries), encoding="utf-8")
    for name in ("tokens", "problems", "responses"):
        table = getattr(Tables(run), name)
        for column in {"token", "question", "answer", "domain", "role", "answer_text"} & {*table.columns}:
            table[column] = [HOSTILE[i % len(HOSTILE)] for i in range(len(table))]
        for column in {"problem_id", "response_id"} & {*table.columns}:
            table[column] = HOSTILE[1] + table[column]
        table.to_parquet(run / FILES[name].path)
    at = {"layer": 2, "feature": 0}
    put(run, "features", pd.DataFrame([at | {"reader": "model", "selected": True}]))
    page = {"kind": "reasoning", "counterpart": None, "trigger_dependence": None, "control_dependence": None}
    pages = pd.DataFrame([at | page]).astype({"counterpart": "Int64"})
    put(run, "feature_pages", pages.assign(r2_tokens=0.5, r2_shuffled=0.0))
    context = {"tokens": json.dumps(HOSTILE), "values": json.dumps([1.0] * len(HOSTILE)), "place": 1}
    example = at | context | {"activation": 1.0, "mode": "think", "problem_id": HOSTILE[0]}
    put(run, "feature_examples", pd.DataFrame([example]))
    tokens = [at | {"list": "trigger", "token": token, "value": 1.5} for token in HOSTILE]
    put(run, "feature_tokens", pd.DataFrame(tokens).assign(n=pd.array([1] * len(tokens), dtype="Int64")))
    put(run, "feature_neighbours", pd.DataFrame([at | {"neighbour": 5, "cosine": 0.5, "selected": True}]))
    put(run, "feature_histograms", pd.DataFrame([at | {"of": "think", "low": 1.0, "high": 2.0, "n": 3}]))
    finish(Run(run))
