"""The stage dictionaries/ of a run: what it leaves, that it resumes, and that its controls are worse."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from saes_fixture import write_run

from normprobe.config import DictionarySettings, SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.runs.directory import Run, StageLabel
from normprobe.runs.tables import Tables
from normprobe.saes import evaluation
from normprobe.saes.dictionary import layer_folder, load
from normprobe.saes.stages import fill_reductions, fill_saes
from normprobe.tracing.trace import fill_traces

LABEL = StageLabel("dictionaries", 1, {}, {})
DEFAULT = DictionarySettings()
TRAINING = SaeSettings(width=40, k=4, n_samples=2560, batch_size=64, trainer="normprobe")


@pytest.fixture(scope="module")
def subjects(make_tiny_qwen3) -> dict[str, OpenModel]:
    opened = assemble(make_tiny_qwen3(n_layers=2), build_tokenizer(), "random", check=False)
    return {"model": opened, "untrained": opened.untrained(1)}


@pytest.fixture(scope="module")
def reduced(tmp_path_factory, subjects) -> Run:
    """A run up to its reductions."""
    run = write_run(tmp_path_factory.mktemp("runs") / "run", subjects["model"])
    tables = Tables(run.path)
    with run.stage(StageLabel("traces", 1, {}, {})) as folder:
        fill_traces(folder, subjects, tables.responses, tables.problems, progress=False)
    with run.stage(StageLabel("saes", 1, {}, {})) as folder:
        fill_saes(folder, subjects, tables.responses, settings=TRAINING, seed=0, progress=False)
    with run.stage(StageLabel("reductions", 1, {}, {})) as folder:
        fill_reductions(folder, subjects, tables.responses, run["saes"], progress=False)
    return run


@pytest.fixture
def run(reduced, tmp_path) -> Run:
    return Run(Path(shutil.copytree(reduced.path, tmp_path / "run")))


def evaluate(run: Run, subjects: dict[str, OpenModel], settings=DEFAULT, **changes) -> Tables:
    with run.stage(LABEL) as folder:
        training = dataclasses.replace(TRAINING, **changes)
        options = {"settings": settings, "training": training, "seed": 0, "progress": False}
        evaluation.fill_dictionaries(folder, subjects, Tables(run.path), run["saes"], **options)
    return Tables(run.path)


def test_a_whole_stage(run, subjects):
    tables = evaluate(run, subjects)
    fidelity, stability = tables.fidelity, tables.stability
    assert sorted(path.name for path in (run.path / "dictionaries").iterdir()) == [
        "fidelity.parquet",
        "model_again_1",
        "stability.parquet",
        "stage.json",
    ]
    assert set(fidelity.groupby(["reader", "layer", "mode"]).size()) == {1}
    assert set(fidelity["reader"]) == {"model", "random", "untrained"}
    assert (fidelity["n_written"] > 0).all()
    by_reader = fidelity.set_index(["layer", "mode", "reader"])["r2"].unstack()
    assert (by_reader["model"] > by_reader["random"]).all()
    # The table of the stage reductions pools both modes.
    pooled = tables.dictionary.set_index(["layer", "reader"])["r2"].unstack()
    assert (by_reader["model"].groupby("layer").mean() - pooled["model"]).abs().max() < 0.2
    own = stability[stability["compared_with"] == "model_again_1"]
    random = stability[stability["compared_with"] == "random"]
    assert len(own) == len(random) == 2 * TRAINING.width
    assert own["cosine"].mean() > random["cosine"].mean()
    chosen = tables.features[tables.features["reader"] == "model"]
    assert own["selected"].to_numpy().tolist() == chosen["selected"].tolist()
    # Trained again: another dictionary, of the same tokens and model.
    identity, device = subjects["model"].identity, subjects["model"].device
    again, first = (
        load(layer_folder(place, 0), identity, 0, device)
        for place in (run.path / "dictionaries" / "model_again_1", run["saes"] / "model")
    )
    assert not np.allclose(again.atoms, first.atoms)
    metadata = [dictionary.sae.cfg.metadata for dictionary in (again, first)]
    assert metadata[0].training_tokens == metadata[1].training_tokens
    assert metadata[0].activation_scale == metadata[1].activation_scale


def test_a_killed_stage_resumes_to_the_same_tables(run, subjects, tmp_path, monkeypatch):
    whole = evaluate(run, subjects)
    expected = [whole.fidelity, whole.stability]
    measured, measure = [], evaluation.Splicing.measure

    def dies(self, layer, *others):
        measured.append((self.subject, layer))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(self, layer, *others)

    monkeypatch.setattr(evaluation.Splicing, "measure", dies)
    (run.path / "dictionaries").rename(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, subjects)
    resumed = evaluate(run, subjects)
    assert measured == [("model", 0), ("model", 1), *[("untrained", layer) for layer in (0, 0, 1)]]
    for table, before in zip([resumed.fidelity, resumed.stability], expected, strict=True):
        pd.testing.assert_frame_equal(table, before)


def test_given_dictionaries_and_those_that_nobody_wants_are_not_trained_again(run, subjects):
    for settings, changes in (
        (DictionarySettings(problems=2, retrained=0), {}),
        (DictionarySettings(problems=2), {"given": str(run["saes"] / "model")}),
    ):
        tables = evaluate(run, subjects, settings, **changes)
        assert set(tables.stability["compared_with"]) == {"random"}
        (run.path / "dictionaries").rename(run.path.parent / f"one_{settings.retrained}")


def test_a_damaged_dictionary_leaves_no_stage(run, subjects):
    place = layer_folder(run["saes"] / "random", 1) / "sae_weights.safetensors"
    place.write_bytes(place.read_bytes()[:-100])
    with pytest.raises(NormprobeError, match=r"expected a readable dictionary in .*layer_01"):
        evaluate(run, subjects)
    assert not (run.path / "dictionaries").exists()
