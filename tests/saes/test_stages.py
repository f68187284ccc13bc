"""The stages saes/ and reductions/ of a run: what they leave, that they resume, and what they refuse."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from saes_fixture import write_run
from safetensors.numpy import load_file

from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.runs.directory import Run, StageLabel
from normprobe.runs.tables import Tables
from normprobe.saes.stages import fill_reductions, fill_saes, load_reader, shape_of
from normprobe.tracing.trace import fill_traces

SETTINGS = SaeSettings(width=40, k=4, n_samples=1280, batch_size=64)


@pytest.fixture
def subjects(make_tiny_qwen3) -> dict[str, OpenModel]:
    opened = assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)
    return {"model": opened, "untrained": opened.untrained(1)}


@pytest.fixture
def run(tmp_path, subjects) -> Run:
    return write_run(tmp_path / "run", subjects["model"])


@pytest.fixture(params=["normprobe", "sae_lens"])
def trainer(request) -> str:
    return request.param


def train(run: Run, subjects: dict[str, OpenModel], **changes) -> None:
    responses = Tables(run.path).responses
    with run.stage(StageLabel("saes", 1, {}, {})) as folder:
        settings = dataclasses.replace(SETTINGS, **changes)
        fill_saes(folder, subjects, responses, settings=settings, seed=0, progress=False)


def reduce(run: Run, subjects: dict[str, OpenModel]) -> None:
    with run.stage(StageLabel("reductions", 1, {}, {})) as folder:
        fill_reductions(folder, subjects, Tables(run.path).responses, run["saes"], progress=False)


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def damage(opened: OpenModel, layer: int) -> None:
    with torch.no_grad():
        opened.blocks[layer].mlp.down_proj.weight[0, 0] = torch.nan


def test_a_whole_study(run, subjects, trainer):
    train(run, subjects, trainer=trainer)
    training = pd.read_parquet(run["saes"] / "training.parquet")
    assert training.groupby("subject")["layer"].apply(list).to_dict() == {
        "model": [0, 1, 2, 3],
        "untrained": [0, 1, 2, 3],
    }
    assert training["r2_held_out"].between(0, 1).all()
    assert training["l0_held_out"].between(1, 4).all()
    assert training["training_tokens"].nunique() == training["held_out_tokens"].nunique() == 1
    assert 640 < training["training_tokens"].iloc[0] <= 1280
    folders = {f"{path.parent.name}/{path.name}" for path in run["saes"].glob("*/layer_*")}
    assert folders == {
        f"{reader}/layer_{layer:02d}" for reader in ("model", "untrained", "random") for layer in range(4)
    }

    tables = Tables(run.path)
    with run.stage(StageLabel("traces", 1, {}, {})) as folder:
        fill_traces(folder, subjects, tables.responses, tables.problems, progress=False)
    reduce(run, subjects)
    assert sorted(path.name for path in run["reductions"].iterdir()) == [
        "dictionary.parquet",
        "features.parquet",
        "pairs.parquet",
        "stage.json",
        "sums.parquet",
        "tokens.safetensors",
    ]
    tables = Tables(run.path)
    for reader in ("model", "untrained", "random"):
        assert tables.layers(reader) == [0, 1, 2, 3]
        assert {name: values.shape for name, values in tables.z(reader).items()} == dict.fromkeys(
            ("z_reasoning", "z_matched", "z_total"), (4, len(tables.tokens))
        )
    n_selected = tables.dictionary.pivot(index="layer", columns="reader", values="n_selected")
    assert (n_selected["model"] > 0).any()
    assert n_selected["random"].equals(n_selected["model"])
    assert (n_selected["untrained"] == n_selected["model"]).any()
    assert (n_selected["untrained"] <= n_selected["model"]).all()  # as many of its features as fire
    # Both stages put the same token into the same place.
    dictionary = load_reader(run["saes"], "model", subjects["model"])[2]
    last = tables.responses.iloc[-1]
    with torch.no_grad():
        states = subjects["model"].model(torch.tensor(last["token_ids"])[None], output_hidden_states=True)
    z = dictionary.encode(states.hidden_states[3][0]).sum(dim=1).numpy()
    rows = tables.tokens["response_id"] == last["response_id"]
    np.testing.assert_allclose(tables.z("model")["z_total"][2, rows], z, rtol=1e-3)
    assert {"reader", "problem_id", "split", "layer", "scope", "mode", "feature_set"} <= set(tables.sums)
    assert set(tables.sums["feature_set"]) == {"reasoning", "plus", "matched", "top8", "top32", "top128"}


def test_an_interrupted_stage_resumes_to_the_same_bytes(run, subjects, trainer, tmp_path):
    train(run, subjects, trainer=trainer)
    reduce(run, subjects)
    other = write_run(tmp_path / "other", subjects["model"])
    twin = OpenModel(**vars(subjects["untrained"]))
    broken = assemble(subjects["model"].untrained(1).model, build_tokenizer(), "broken", check=False)
    damage(broken, 2)
    with pytest.raises(NormprobeError, match="layer 2 of subject 'untrained'"):
        train(other, {"model": subjects["model"], "untrained": broken}, trainer=trainer)
    partial = other.path / "saes.partial"
    assert len(list(partial.glob("model/layer_*"))) == 4
    shutil.rmtree(partial / "model" / "layer_01")
    kept = (partial / "model" / "layer_02" / "cfg.json").stat().st_mtime_ns
    train(other, {"model": subjects["model"], "untrained": twin}, trainer=trainer)
    assert (other["saes"] / "model" / "layer_02" / "cfg.json").stat().st_mtime_ns == kept
    assert weights(other["saes"]) == weights(run["saes"])
    with pytest.raises(NormprobeError, match="layer 2 of subject 'untrained'"):
        saes = other["saes"]
        shutil.copytree(run["saes"], saes, dirs_exist_ok=True)
        broken_identity = OpenModel(**vars(broken) | {"identity": twin.identity})
        reduce(other, {"model": subjects["model"], "untrained": broken_identity})
    assert not (other.path / "reductions").exists()
    assert (other.path / "reductions.partial" / "random.safetensors").exists()
    reduce(other, {"model": subjects["model"], "untrained": twin})
    for name in ("features", "sums", "pairs", "dictionary"):
        pd.testing.assert_frame_equal(
            *(pd.read_parquet(r["reductions"] / f"{name}.parquet") for r in (other, run))
        )
    mine, theirs = (load_file(r["reductions"] / "tokens.safetensors") for r in (other, run))
    assert set(mine) == set(theirs)
    assert all(np.array_equal(mine[key], theirs[key]) for key in mine)


def test_memory_decides_how_many_layers_go_together_and_nothing_else(run, subjects, tmp_path):
    train(run, subjects, layers="0,2-3", trainer="sae_lens")
    other = write_run(tmp_path / "other", subjects["model"])
    one_layer = 1280 * 32 * 4
    train(other, subjects, layers="3,0,2", memory_gb=one_layer / 2**30, trainer="sae_lens")
    assert weights(run["saes"]) == weights(other["saes"])
    half = write_run(tmp_path / "half", subjects["model"])
    train(half, subjects, layers="1", memory_gb=one_layer / 2**31, trainer="sae_lens")
    assert set(pd.read_parquet(half["saes"] / "training.parquet")["training_tokens"]) == {640}


def test_states_that_fit_are_read_once(run, subjects):
    """By as many forward passes with our trainer, for many epochs and the dictionaries' quality, as with SAELens's."""
    passes = []
    hooks = [
        opened.blocks[0].register_forward_hook(lambda *_: passes.append(1)) for opened in subjects.values()
    ]
    train(run, subjects, trainer="sae_lens")
    once = len(passes)
    shutil.rmtree(run["saes"])
    train(run, subjects)
    for hook in hooks:
        hook.remove()
    assert len(passes) == 2 * once > 0


def test_states_that_do_not_fit_are_read_in_chunks(run, subjects, tmp_path):
    layers = {"layers": "0,2-3", "trainer": "normprobe"}
    train(run, subjects, **layers)
    other = write_run(tmp_path / "other", subjects["model"])
    third = 3 * 1280 * 32 * 4 / 3
    train(other, subjects, memory_gb=third / 2**30, **layers)
    whole, parts = (pd.read_parquet(r["saes"] / "training.parquet") for r in (run, other))
    # All of them, not those that fit.
    assert parts["training_tokens"].tolist() == whole["training_tokens"].tolist()
    np.testing.assert_allclose(parts["r2_held_out"], whole["r2_held_out"], atol=0.05)
    for made, low, high in ((run, 0.99, 1.01), (other, 1.3, 3.3)):  # three chunks
        metadata = json.loads((made["saes"] / "model" / "layer_02" / "cfg.json").read_text())["metadata"]
        assert low < metadata["mixing_in_batch"] < high
        assert metadata["mixing_of_neighbours"] <= metadata["mixing_in_batch"]
    with pytest.raises(
        NormprobeError, match=r"states of a batch of 64 tokens in 3 layers .*; give --memory-gb"
    ):
        train(write_run(tmp_path / "small", subjects["model"]), subjects, memory_gb=2**-20, **layers)


def test_given_dictionaries_are_read_instead_and_controls_follow_their_shape(run, subjects, tmp_path):
    train(run, {"model": subjects["model"]}, layers="1-2", width=24, k=3, n_samples=640)
    given = run["saes"] / "model"
    other = write_run(tmp_path / "other", subjects["model"])
    train(other, subjects, given=str(given))
    assert not list((other["saes"] / "model").glob("layer_*"))
    training = pd.read_parquet(other["saes"] / "training.parquet")
    assert training[["subject", "layer"]].to_numpy().tolist() == [["untrained", 1], ["untrained", 2]]
    reduce(other, subjects)
    dictionary = pd.read_parquet(other["reductions"] / "dictionary.parquet")
    assert set(dictionary["width"]) == {24}
    assert shape_of(other["saes"]) == (24, 3)
    assert set(dictionary["layer"]) == {1, 2}
    assert dictionary["reader"].unique().tolist() == ["model", "random", "untrained"]
    mine, theirs = (load_reader(r["saes"], "model", subjects["model"]) for r in (other, run))
    assert all(torch.equal(mine[layer].atoms, theirs[layer].atoms) for layer in (1, 2))


def refused(run: Run, told: str, subjects, **changes) -> None:
    with pytest.raises(NormprobeError, match=told) as error:
        train(run, subjects, **changes)
    assert "\n" not in str(error.value)
    assert not (run.path / "saes").exists()


def test_what_is_refused_leaves_no_stage(run, subjects, tmp_path):
    refused(run, "expected layers between 0 and 3, got", subjects, layers="0,4")
    refused(run, "expected a folder of dictionaries, or RELEASE:ID", subjects, given="nowhere")
    train(run, {"model": subjects["untrained"]})
    other = write_run(tmp_path / "other", subjects["model"])
    refused(other, "the model's fingerprint", subjects, given=str(run["saes"] / "model"))
    damage(subjects["model"], 3)
    refused(other, "NaN or infinity in layer 3 of subject 'model'", subjects)


def test_dictionaries_of_several_widths_are_refused(run, subjects, tmp_path):
    given = tmp_path / "given"
    for layer, width in ((0, 24), (1, 40)):
        made = write_run(tmp_path / str(width), subjects["model"])
        train(made, {"model": subjects["model"]}, layers=str(layer), width=width, k=3, n_samples=640)
        shutil.copytree(made["saes"] / "model", given, dirs_exist_ok=True)
    refused(
        run,
        r"expected dictionaries of one width and k in .* got \[\(24, 3\), \(40, 3\)\]",
        subjects,
        given=str(given),
    )


def test_a_damaged_dictionary_stops_the_reductions(run, subjects):
    train(run, subjects)
    path = run["saes"] / "untrained" / "layer_01" / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(NormprobeError, match=r"expected a readable dictionary in .*layer_01") as error:
        reduce(run, subjects)
    assert "\n" not in str(error.value)
    assert not (run.path / "reductions").exists()
