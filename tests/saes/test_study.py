"""Studies: the YAML files of the repository, what a study leaves, and what its file may not say."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from normprobe.cli import main
from normprobe.errors import NormprobeError
from normprobe.runs.directory import Run
from normprobe.saes.study import Study, read_study

STUDIES = sorted((Path(__file__).parents[2] / "sae_training").glob("*.yaml"))


def test_there_is_a_study_for_every_model_of_the_job():
    assert [path.stem for path in STUDIES] == [
        "qwen3_14b",
        "qwen3_1_7b",
        "qwen3_32b",
        "qwen3_4b",
        "qwen3_8b",
        "r1_distill_llama_8b",
        "tiny_thinker",
    ]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_repository_is_read(path):
    study = read_study(path)
    assert study.release or study.settings.width % 8 == 0
    assert study.problems == ("testbed" if study.model == "tiny-thinker" else None)


@pytest.fixture
def study(tiny_qwen3_dir, tmp_path) -> Path:
    path = tmp_path / "study.yaml"
    values = {"model": str(tiny_qwen3_dir), "problems": "testbed", "n_problems": 12, "max_new_tokens": 12}
    values |= {"width": 40, "k": 4, "n_samples": 640, "batch_size": 64, "layers": [1, 3]}
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_study_leaves_a_run_with_dictionaries(study, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train-saes", str(study), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"dictionaries: {out / 'saes' / 'model'}\n"
    run = Run.load(out)
    assert pd.read_parquet(run["saes"] / "training.parquet")["layer"].tolist() == [1, 3]
    responses = pd.read_parquet(run["responses"] / "responses.parquet")
    assert len(responses) == 24
    assert set(responses["mode"]) == {"think", "no_think"}
    assert run.manifest()["arguments"]["resolved"]["width"] == 40
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert main(["train-saes", str(study), "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    # A study may use them without any problems.
    reading = tmp_path / "reading.yaml"
    values = yaml.safe_load(study.read_text())
    reading.write_text(yaml.safe_dump({"model": values["model"], "release": str(out / "saes" / "model")}))
    assert main(["train-saes", str(reading), "--out", str(tmp_path / "read")]) == 0
    assert (tmp_path / "read" / "saes" / "random" / "layer_03" / "cfg.json").exists()


@pytest.mark.parametrize(
    "line, told",
    [
        ("modle: x", "expected only the keys .* got modle"),
        ("width: wide", "expected width of type int .* got 'wide'"),
        ("k: true", "expected k of type int .* got True"),
        ("k: 0", "expected k above 0 .* got 0"),
        ("layers: 3", r"expected layers of type list\[int\] \| None .* got 3"),
        ("dtype: null", "expected dtype of type str .* got None"),
        ("model: null", "expected model of type str .* got None"),
    ],
)
def test_a_study_with_a_wrong_line(line, told, study):
    key = line.partition(":")[0]
    values = {k: v for k, v in yaml.safe_load(study.read_text()).items() if k != key}
    study.write_text(yaml.safe_dump(values) + line + "\n")
    with pytest.raises(NormprobeError, match=told) as error:
        read_study(study)
    assert "\n" not in str(error.value)


def test_a_study_without_model_or_problems(study, tmp_path, capsys):
    study.write_text("width: 40\n")
    with pytest.raises(NormprobeError, match=r"expected a model in .* got none; add a line"):
        read_study(study)
    study.write_text("model: tiny-thinker\n")
    assert main(["train-saes", str(study), "--out", str(tmp_path / "out")]) == 2
    assert "got none; give --problems FILE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_arguments_override_the_file(study):
    assert read_study(study, device="cuda").device == "cuda"
    assert read_study(study).device == Study("m").device == "cpu"
