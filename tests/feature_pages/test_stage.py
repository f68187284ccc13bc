"""The stage features/: its tables, what Neuronpedia gets, that it gives the same again, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from normprobe.config import FeatureSettings
from normprobe.errors import NormprobeError
from normprobe.feature_pages.stage import fill_features
from normprobe.runs.layout import FILES
from normprobe.saes.reductions import reduce_subject

SETTINGS = FeatureSettings(per_layer=2, n_injected=6)
TABLES = ("pages", "examples", "tokens", "neighbours", "histograms")

# `NeuronpediaDashboardBatch().to_dict()` of sae-dashboard 0.8.0: the type of every value, of a list that of its items.
ACTIVATION = {
    "bin_min": float, "bin_max": float, "bin_contains": float, "tokens": [str], "values": [float],
    "qualifying_token_index": int,
}  # fmt: skip
FEATURE = {
    "feature_index": int, "neuron_alignment_indices": [int], "neuron_alignment_values": [float],
    "neuron_alignment_l1": [float], "correlated_neurons_indices": [int], "correlated_neurons_l1": [float],
    "correlated_neurons_pearson": [float], "correlated_features_indices": [int], "correlated_features_l1": [float],
    "correlated_features_pearson": [float], "neg_str": [str], "neg_values": [float], "pos_str": [str],
    "pos_values": [float], "frac_nonzero": float, "freq_hist_data_bar_values": [float],
    "freq_hist_data_bar_heights": [float], "logits_hist_data_bar_heights": [float],
    "logits_hist_data_bar_values": [float], "n_prompts_total": int, "n_tokens_in_prompt": int, "dataset": str,
    "decoder_weights_dist": [float], "activations": [ACTIVATION], "vector": [float],
}  # fmt: skip
BATCH = {"model_id": str, "layer": int, "sae_set": str, "sae_id_suffix": type(None), "features": [FEATURE]}


def assert_shape(value: Any, shape: Any) -> None:
    if isinstance(shape, dict):
        assert value.keys() == shape.keys()
        for key, of_key in shape.items():
            assert_shape(value[key], of_key)
    elif isinstance(shape, list):
        assert isinstance(value, list)
        for item in value:
            assert_shape(item, shape[0])
    else:
        assert type(value) is shape


@pytest.fixture
def features(opened, responses, dictionaries) -> pd.DataFrame:
    return reduce_subject(opened, responses, {"model": dictionaries}, "model")["model"].features


@pytest.fixture
def fill(opened, responses, dictionaries, features):
    def into(folder: Path, **changes: Any) -> Path:
        folder.mkdir()
        given = {
            "features": features,
            "settings": SETTINGS,
            "seed": 0,
            "source": "testbed",
            "progress": False,
        }
        given |= {"responses": responses, **changes}
        answers, tested = given.pop("responses"), given.pop("features")
        fill_features(folder, opened, answers, tested, dictionaries, **given)
        return folder

    return into


def read(folder: Path) -> dict[str, pd.DataFrame]:
    (run := folder.parent)
    assert folder.name == "features"
    return {name: FILES[f"feature_{name}"].read(run) for name in TABLES}


def test_every_page_has_its_parts(fill, tmp_path, features, opened):
    tables = read(fill(tmp_path / "features"))
    pages = tables["pages"]
    assert (pages.groupby(["layer", "kind"]).size() <= 2).all()
    assert set(pages["kind"]) == {"reasoning", "matched"}
    assert pages["trigger_dependence"].notna().any()
    assert pages.loc[pages["kind"] == "matched", "trigger_fraction"].isna().all()
    keys = set(zip(pages["layer"], pages["feature"], strict=True))
    for name in ("tokens", "neighbours", "histograms"):
        assert set(zip(tables[name]["layer"], tables[name]["feature"], strict=True)) == keys
    for _, example in tables["examples"].iterrows():
        tokens, values = json.loads(example["tokens"]), json.loads(example["values"])
        assert len(tokens) == len(values) > example["place"]
        assert values[example["place"]] == pytest.approx(example["activation"], abs=1e-4)
    lists = tables["tokens"].groupby("list")
    assert set(lists.groups) == {"trigger", "control", "promoted", "demoted"}
    for _, token in tables["tokens"].iterrows():
        assert token["token"] == opened.tokenizer.decode([token["token_id"]])
    # Of the reasoning features the difference in the split measure goes the way of the split select, mostly.
    assert (pages.loc[pages["kind"] == "reasoning", "difference"] > 0).mean() > 0.5


def test_neuronpedia_gets_the_shape_of_saedashboard(fill, tmp_path, responses):
    folder = fill(tmp_path / "features")
    pages = read(folder)["pages"]
    paths = sorted((folder / "neuronpedia").rglob("*.json"))
    assert [str(path.relative_to(folder)) for path in paths] == [
        f"neuronpedia/layer_{layer:02d}/batch-0.json" for layer in sorted(set(pages["layer"]))
    ]
    n = (responses["split"] == "measure").sum()
    for path in paths:
        batch = json.loads(path.read_text(encoding="utf-8"))
        assert_shape(batch, BATCH)
        own = pages[pages["layer"] == batch["layer"]]
        assert [feature["feature_index"] for feature in batch["features"]] == own["feature"].tolist()
        for feature in batch["features"]:
            assert 0 <= feature["frac_nonzero"] <= 1
            assert feature["n_prompts_total"] == n
            assert feature["pos_values"] == sorted(feature["pos_values"], reverse=True)
            assert feature["neg_values"] == sorted(feature["neg_values"])
            for heights, centres in (
                ("freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
                ("logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
            ):
                assert len(feature[heights]) == len(feature[centres])
                assert feature[centres] == sorted(feature[centres])
            for activation in feature["activations"]:
                assert activation["values"][activation["qualifying_token_index"]] == pytest.approx(
                    activation["bin_max"], abs=1e-3
                )


def test_the_same_seed_gives_the_same_tables_and_another_one_others(fill, tmp_path):
    for name in ("first", "again", "other"):
        (tmp_path / name).mkdir()
    first, again, other = (
        read(fill(tmp_path / name / "features", seed=seed))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    for name in TABLES:
        pd.testing.assert_frame_equal(first[name], again[name])
    drawn_alike = ["layer", "feature", "kind", "r2_tokens", "difference", "n_texts"]
    pd.testing.assert_frame_equal(first["pages"][drawn_alike], other["pages"][drawn_alike])
    assert not np.array_equal(first["pages"]["r2_shuffled"], other["pages"]["r2_shuffled"], equal_nan=True)


def test_without_answers_in_no_think_nothing_is_injected_and_the_rest_is_there(fill, tmp_path, responses):
    answered = ~((responses["mode"] == "no_think") & (responses["split"] == "measure"))
    tables = read(fill(tmp_path / "features", responses=responses[answered]))
    pages = tables["pages"]
    assert (pages["n_texts"] == 0).all()
    assert pages[["trigger_d", "control_d", "trigger_dependence", "difference"]].isna().all(axis=None)
    assert pages["r2_tokens"].notna().any()
    assert len(tables["examples"])


def test_no_reasoning_feature_is_one_line(fill, features, tmp_path):
    with pytest.raises(NormprobeError, match="expected reasoning features to write pages on, got none"):
        fill(tmp_path / "features", features=features.assign(selected=False))
    assert not list((tmp_path / "features").iterdir())


def test_features_that_never_fire_have_pages_without_examples(fill, dictionaries, tmp_path):
    for dictionary in dictionaries.values():
        with torch.no_grad():
            dictionary.sae.b_enc.fill_(-1e6)
    tables = read(fill(tmp_path / "features"))
    assert len(tables["pages"])
    assert tables["examples"].empty
    assert not tables["tokens"]["list"].isin(["trigger", "control"]).any()
