"""`features.html`: a page on each of the clearest reasoning features and their controls, and the table that sums them
up: are they triggered by single tokens?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normprobe.feature_pages.dependence import CONTEXT_DEPENDENT, TOKEN_DRIVEN
from normprobe.report.document import records
from normprobe.report.findings import NothingToDraw
from normprobe.report.heatmap import shade_of, visible
from normprobe.report.render import render
from normprobe.report.table import count, number
from normprobe.runs.atomic import atomic_write_text, refusing_disk_errors
from normprobe.runs.directory import Run
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables
from normprobe.style import MODE_LINES

HEAD = (
    "layer", "shown of I", "triggered", "by others", "controls triggered", "by others", "R²", "controls' R²", "permuted"
)  # fmt: skip
CAPTION = (
    "Triggered: token-triggered by the criterion of arXiv 2601.05679. Three of a feature's ten strongest tokens, at "
    "random places of a no_think response, raise its maximum over the response by d ≥ 0.2 (p < 0.05). By others: the "
    "same with tokens of like frequency instead, which the paper lacks; it tells what any insertion does. Controls are "
    "features outside I of like mean activation. R²: how much of the activation the identity of the token explains, by "
    "means over other problems; medians over features, and with the tokens permuted."
)
KINDS = ("reasoning", "matched")
KEYS = ["layer", "feature"]
PARTS = ("examples", "tokens", "neighbours", "histograms")
LISTS = ("trigger", "control", "promoted", "demoted")


def summary(tables: Tables) -> dict[str, Any]:
    """Head and rows of the summary by layer, the sentence above them, and what they mean.

    Raises NothingToDraw for a run without pages.
    """
    if not tables.has("feature_pages"):
        raise NothingToDraw(
            f"This run has no pages on features; `normprobe features {tables.path}` writes them."
        )
    pages, features = tables.feature_pages, tables.features
    selected = features[(features["reader"] == "model") & features["selected"]].groupby("layer").size()
    rows = []
    for layer, own in pages.groupby("layer"):
        reasoning, matched = (own[own["kind"] == kind] for kind in KINDS)
        shares = [
            _share(rows, column)
            for rows in (reasoning, matched)
            for column in ("trigger_dependence", "control_dependence")
        ]
        r2 = (reasoning["r2_tokens"], matched["r2_tokens"], own["r2_shuffled"])
        rows.append(
            [
                str(layer),
                f"{len(reasoning)} of {count(int(selected[layer]))}",
                *shares,
                *(number(values.median()) for values in r2),
            ]
        )
    return {"sentence": _sentence(pages, int(selected.sum())), "head": HEAD, "rows": rows, "caption": CAPTION}


def _sentence(pages: pd.DataFrame, n_selected: int) -> str:
    reasoning, matched = (pages[pages["kind"] == kind] for kind in KINDS)
    driven = int((reasoning["trigger_dependence"] == TOKEN_DRIVEN).sum())
    return (
        f"Of the {len(reasoning)} clearest of {count(n_selected)} reasoning features, "
        f"{_share(reasoning, 'trigger_dependence')} are token-triggered ({driven} with a large effect, d ≥ 0.8); "
        f"tokens of like frequency trigger {_share(reasoning, 'control_dependence')}. Of the controls, features "
        f"of like activation outside I, {_share(matched, 'trigger_dependence')} are token-triggered; tokens of like "
        f"frequency trigger {_share(matched, 'control_dependence')}."
    )


def _share(pages: pd.DataFrame, column: str) -> str:
    """How many of the features that were tried are not context-dependent."""
    tried = pages[column].dropna()
    n = int((tried != CONTEXT_DEPENDENT).sum())
    return f"{n} of {len(tried)}" if len(tried) else "–"


def summary_text(tables: Tables) -> str:
    """The summary for a terminal."""
    found = summary(tables)
    table = [list(found["head"]), *found["rows"]]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    return "\n".join([*lines, "", found["sentence"]])


def summary_document(tables: Tables) -> dict[str, Any]:
    """What JSON can hold of it: the `summary` in a sentence, and `features`, a row per page as in pages.parquet."""
    return {"summary": summary(tables)["sentence"], "features": records(tables.feature_pages)}


def write_pages(tables: Tables) -> Path:
    """Write features.html into the run's directory and return its path. Runs no model, fetches nothing.

    Raises NothingToDraw for a run without pages, NormprobeError for corrupt files.
    """
    found, path = summary(tables), tables.path / FILES["features_html"].path
    layers = pages(tables)
    model = Run(tables.path).manifest()["identities"].get("model", {})
    name = str(model.get("name", tables.path.name))
    with refusing_disk_errors(tables.path):
        atomic_write_text(path, render("features.html.jinja", name=name, summary=found, layers=layers))
    return path


def pages(tables: Tables) -> dict[int, list[dict[str, Any]]]:
    """By layer, what the template shows of each feature."""
    features = tables.features[tables.features["reader"] == "model"].set_index(KEYS)
    parts = {name: getattr(tables, f"feature_{name}") for name in PARTS}
    places = {name: table.groupby(KEYS).indices for name, table in parts.items()}
    layers: dict[int, list[dict[str, Any]]] = {}
    for _, page in tables.feature_pages.iterrows():
        key = page["layer"], page["feature"]
        own = {name: table.iloc[places[name].get(key, [])] for name, table in parts.items()}
        layers.setdefault(page["layer"], []).append(_shown(page, features.loc[key], own))
    return layers


def _shown(page: pd.Series, tested: pd.Series, parts: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What the template shows of a feature: its row of pages.parquet, None where a value is missing, and the rest."""
    row = {str(name): None if pd.isna(value) else value for name, value in page.items()}
    tokens = parts["tokens"].assign(token=parts["tokens"]["token"].map(visible))
    lists = {name: tokens[tokens["list"] == name].to_dict("records") for name in LISTS}
    return row | {
        "tested": tested,
        "lists": lists,
        "neighbours": parts["neighbours"].to_dict("records"),
        "histogram": _histogram(parts["histograms"]),
        "examples": _examples(parts["examples"]),
    }


def _histogram(bins: pd.DataFrame) -> dict[str, Any]:
    """Bars of each mode over the bins from the lowest to the highest that holds a token: place and share of tokens.

    Empty for a feature that is silent in the split measure.
    """
    of_modes = bins[bins["of"].isin(list(MODE_LINES))]
    edges = sorted(of_modes.loc[of_modes["high"] > 0, "low"].unique())
    if not edges:
        return {}
    first = np.log2(edges[0])
    place = (2 * (np.log2(of_modes["low"].where(of_modes["high"] > 0)) - first)).round()
    modes = []
    for mode, line in MODE_LINES.items():
        own = of_modes[of_modes["of"] == mode]
        shares = own["n"] / max(own["n"].sum(), 1)
        fires = own["high"] > 0
        bars = list(zip(place[own.index][fires].astype(int), shares[fires], strict=True))
        modes.append({"mode": mode, "colour": line["color"], "silent": 1 - shares[fires].sum(), "bars": bars})
    highest = max(share for mode in modes for _, share in mode["bars"])
    top = float(of_modes["high"].max())
    return {"modes": modes, "n": int(place.max()) + 1, "highest": highest, "edges": [edges[0], top]}


def _examples(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Each example with its context: the text of each token, and how strongly it is shaded."""
    strongest, examples = rows["activation"].max(), []
    for row in rows.sort_values("rank").to_dict("records"):
        tokens = zip(json.loads(row["tokens"]), json.loads(row["values"]), strict=True)
        context = [{"text": visible(token), "shade": _shade(value / strongest)} for token, value in tokens]
        examples.append({**row, "context": context})
    return examples


def _shade(share: float) -> int | None:
    """The shade of a token that fires at this share of the strongest; None of a silent one."""
    return shade_of(share) if share > 0 else None
