"""The studies of sae_training/ say what their trainings take; it is what the plan computes from the models' shapes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_reading_plan import QWEN3_8B

from normprobe.estimates import StudySizes
from normprobe.model_settings import ModelSettings
from normprobe.study_file import read_study

FOLDER = Path(__file__).parents[2] / "sae_training"
# hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, whether the embeddings are tied
SHAPES = {
    "qwen3_1_7b": (2048, 28, 16, 6144, True),
    "qwen3_4b": (2560, 36, 32, 9728, True),
    "qwen3_8b": (4096, 36, 32, 12_288, False),
    "qwen3_14b": (5120, 40, 40, 17_408, False),
    "qwen3_32b": (5120, 64, 64, 25_600, False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_study_says_what_its_training_takes(name, tmp_path):
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    shape = dict(zip((*keys, "tie_word_embeddings"), SHAPES[name], strict=True))
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B | shape))
    study = read_study(FOLDER / f"{name}.yaml")
    study = replace(study, model=ModelSettings(str(tmp_path), dtype="bfloat16", device="cuda"))
    note = StudySizes.of(study, {"sae": 1, "select": 1, "measure": 1}).training_note
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert note in " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#")), note
