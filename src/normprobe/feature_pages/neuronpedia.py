"""The pages in the form that Neuronpedia reads: a file batch-0.json per layer, as SAEDashboard writes them.

The shape is that of `NeuronpediaDashboardBatch.to_dict()` of sae-dashboard 0.8.0, whose folders Neuronpedia's
convert-saedashboard-to-neuronpedia-export.py reads. What SAEDashboard has and a page has not is an empty list, as
where SAEDashboard leaves it out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from normprobe.runs.atomic import atomic_write_json
from normprobe.thinking_formats import MODES

SET = "normprobe"
NOT_MEASURED = (
    *("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
    *("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson"),
    *("correlated_features_indices", "correlated_features_l1", "correlated_features_pearson"),
    *("decoder_weights_dist", "vector"),
)


def write_batches(
    folder: Path, tables: Mapping[str, pd.DataFrame], model: str, source: str, responses: pd.DataFrame
) -> None:
    """Write neuronpedia/layer_NN/batch-0.json into the stage's folder, from its tables by name.

    model: its name; source: where the problems come from; responses: of the run, of which those of the split measure
    were shown. A response is what SAEDashboard calls a prompt.
    """
    measured = responses[responses["split"] == "measure"]
    about = {
        "n_prompts_total": len(measured),
        "n_tokens_in_prompt": int(measured["token_ids"].map(len).max()),
        "dataset": source,
    }
    for layer, pages in tables["pages"].groupby("layer"):
        features = []
        for feature in pages["feature"]:
            own = {
                name: rows[(rows["layer"] == layer) & (rows["feature"] == feature)]
                for name, rows in tables.items()
            }
            features.append(_feature(own) | about | {"feature_index": int(feature)})
        batch = {"model_id": model, "layer": int(layer), "sae_set": SET, "sae_id_suffix": None}  # type: ignore[call-overload]
        place = folder / "neuronpedia" / f"layer_{layer:02d}"
        place.mkdir(parents=True, exist_ok=True)
        atomic_write_json(place / "batch-0.json", batch | {"features": features})


def _feature(own: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    lists = {name: rows.sort_values("rank") for name, rows in own["tokens"].groupby("list")}
    bins = own["histograms"]
    active = bins[bins["of"].isin(MODES)].groupby(["low", "high"], as_index=False)["n"].sum()
    fires, logits = active[active["high"] > 0], bins[bins["of"] == "logits"]
    return {
        **{name: [] for name in NOT_MEASURED},
        "pos_str": lists["promoted"]["token"].tolist(),
        "pos_values": lists["promoted"]["value"].round(3).tolist(),
        "neg_str": lists["demoted"]["token"].tolist(),
        "neg_values": lists["demoted"]["value"].round(3).tolist(),
        "frac_nonzero": float(fires["n"].sum() / active["n"].sum()) if len(active) else 0.0,
        "freq_hist_data_bar_values": _centres(fires),
        "freq_hist_data_bar_heights": fires["n"].astype(float).tolist(),
        "logits_hist_data_bar_values": _centres(logits),
        "logits_hist_data_bar_heights": logits["n"].astype(float).tolist(),
        "activations": [_activation(row) for _, row in own["examples"].iterrows()],
    }


def _centres(bins: pd.DataFrame) -> list[float]:
    return ((bins["low"] + bins["high"]) / 2).round(5).tolist()


def _activation(example: pd.Series) -> dict[str, Any]:
    """One of SAEDashboard's "top activations": the bin from −1 that contains −1."""
    return {
        "bin_min": -1.0,
        "bin_max": float(example["activation"]),
        "bin_contains": -1.0,
        "tokens": json.loads(example["tokens"]),
        "values": json.loads(example["values"]),
        "qualifying_token_index": int(example["place"]),
    }
