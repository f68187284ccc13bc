"""What `normprobe dictionaries` found: a table per mode, one of the atoms that come back, and a figure over layers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from normprobe.claims.measure.drawing import legend_below
from normprobe.claims.measure.readers import READER_NAMES
from normprobe.report.document import records
from normprobe.report.figure import HEIGHT, Drawing
from normprobe.report.findings import NothingToDraw
from normprobe.report.table import Cells, cells, count, number
from normprobe.runs.tables import Tables
from normprobe.style import READER_LINES

SHARED = 0.7
"""The least cosine of two atoms that are one feature (arXiv 2501.16615)."""
RANDOM = "random"
READERS = ("model", RANDOM, "untrained")
COLUMNS = {
    "r2": "R²",
    "l0": "L0",
    "frac_alive": "Alive",
    "ce_loss_with_sae": "Loss, spliced",
    "ce_loss_without_sae": "plain",
    "ce_loss_with_mean": "mean",
    "ce_loss_with_ablation": "zero",
    "loss_recovered": "Loss recovered",
    "kl_div_with_sae": "KL",
}
"""Columns of fidelity.parquet, and their heads. Of the losses without a dictionary only this model's are shown."""
MEASURES = (
    "{mode}, held-out responses. In each cell: this model's dictionary / a random one of the same shape on the same "
    "states / the untrained twin's own on the twin's states. R², active features (L0) and features that fire at all: "
    "of the states of thought and answer. Loss: nats per token that the model wrote; where spliced, every state of the "
    "layer but sinks is replaced by its reconstruction; recovered: of what replacing them by their mean costs (–: that "
    "costs less than 0.05 nats). KL: from the plain model's next-token distribution, in nats."
)
STABILITY = (
    "Atoms of this model's dictionaries and their partners in the best one-to-one matching with those of another "
    "training from other first atoms, and with random ones: mean cosine, and in brackets the share of at least "
    f"{SHARED}."
)
CAPTION = (
    "Held-out states over layers: (a) share of variance explained, (b) share of the loss recovered of what replacing "
    "the states by their mean costs. Filled: think; open: no_think. Not shown: what lies below −0.5, and in (b) where "
    "the mean costs less than 0.05 nats, as in the untrained twin."
)


def read(tables: Tables, name: str) -> pd.DataFrame:
    """The table fidelity or stability. Raises NothingToDraw for a run whose dictionaries were not evaluated."""
    if not tables.has(name):
        raise NothingToDraw(
            f"The dictionaries were not evaluated; `normprobe dictionaries {tables.path}` does it."
        )
    return getattr(tables, name)


def fidelity_tables(fidelity: pd.DataFrame) -> dict[str, Cells]:
    """By its caption, the table of each mode: a row per layer, the readers' numbers side by side in each cell."""
    readers = [reader for reader in READERS if reader in set(fidelity["reader"])]
    found = {}
    for mode, of_mode in fidelity.groupby("mode", sort=False):
        rows = []
        for layer, of_layer in of_mode.groupby("layer"):
            by_reader = of_layer.set_index("reader").loc[readers]
            row = {"Layer": str(layer)}
            for column, name in COLUMNS.items():
                alone = column.startswith("ce_loss") and column != "ce_loss_with_sae"
                values = by_reader[column].tolist()
                row[name] = " / ".join(map(number, values[:1] if alone else values))
            rows.append(row)
        found[MEASURES.format(mode=mode)] = cells(rows)
    return found


def stability_table(stability: pd.DataFrame) -> Cells:
    """A row per layer: mean matched cosine and the share of at least `SHARED`, of all atoms and of those of I."""
    rows = []
    for layer, of_layer in stability.groupby("layer"):
        again = of_layer["compared_with"] != RANDOM
        row = {"Layer": str(layer)}
        for name, chosen in (("all features", of_layer["feature"] >= 0), ("I", of_layer["selected"])):
            row[f"Trained again, {name}"] = _cosines(of_layer.loc[again & chosen, "cosine"])
            row[f"Random, {name}"] = _cosines(of_layer.loc[~again & chosen, "cosine"])
        row["|I|"] = count(int((of_layer["selected"] & ~again).sum()))
        rows.append(row)
    return cells(rows)


def _cosines(cosine: pd.Series) -> str:
    return f"{number(cosine.mean())} ({(cosine >= SHARED).mean():.0%})" if len(cosine) else "–"


def text(tables: Tables) -> str:
    """The tables for a terminal."""
    shown = fidelity_tables(read(tables, "fidelity")) | {
        STABILITY: stability_table(read(tables, "stability"))
    }
    return "\n\n".join(
        f"{pd.DataFrame(rows, columns=head).to_string(index=False)}\n{caption}"
        for caption, (head, rows) in shown.items()
    )


def document(tables: Tables) -> dict[str, Any]:
    """What JSON can hold: `fidelity` as in its table, and `stability`, of the matched cosines by layer, partner and
    whether the features are in I: how many (`n`), their `mean`, and the share of at least `SHARED` (`shared`)."""
    cosine = read(tables, "stability").groupby(["layer", "compared_with", "selected"])["cosine"]
    stability = cosine.agg(n="size", mean="mean", shared=lambda values: (values >= SHARED).mean())
    return {
        "fidelity": records(read(tables, "fidelity")),
        "stability": records(stability.reset_index()),
    }


def drawing(tables: Tables) -> Drawing:
    """R² and loss recovered over layers, by reader and mode."""
    fidelity = read(tables, "fidelity")

    def draw(panels: list[Any]) -> None:
        for axes, (column, name) in zip(
            panels, (("r2", "R²"), ("loss_recovered", "loss recovered")), strict=True
        ):
            for (reader, mode), rows in fidelity.groupby(["reader", "mode"], sort=False):
                shown = rows[rows[column] >= -0.5].sort_values("layer")
                style = dict(READER_LINES[str(reader)])
                if mode != "think":
                    style |= {"markerfacecolor": "white", "linewidth": 0.7}
                axes.plot(
                    shown["layer"], shown[column], label=f"{READER_NAMES[str(reader)]}, {mode}", **style
                )
            axes.set_ylabel(name)
            axes.set_xlabel("layer")
            axes.set_ylim(top=1.05)
        legend_below(panels[-1])

    return Drawing("Dictionaries", CAPTION, draw, panels=2, height=0.7 * HEIGHT)
