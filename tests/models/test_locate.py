"""A model is what its files are: names, folders of the hub's cache and revisions lead to it and decide nothing."""

import shutil
from pathlib import Path

import pytest

from normprobe.errors import NormprobeError
from normprobe.models.open import assemble, open_model
from normprobe.problems import bundled
from normprobe.problems.testbed.tokenizer import build_tokenizer

COMMIT = "c" * 40


def refusal(*arguments, **options) -> str:
    with pytest.raises(NormprobeError) as refused:
        open_model(*arguments, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def snapshot(tiny_qwen3_dir, tmp_path):
    """A snapshot folder in the hub's cache."""
    folder = tmp_path / "hub" / "models--org--thinker" / "snapshots" / COMMIT
    folder.parent.mkdir(parents=True)
    shutil.move(tiny_qwen3_dir, folder)
    return folder


def test_the_hubs_cache_is_the_hubs_model(snapshot):
    for place in (snapshot, snapshot.parent.parent):
        identity = open_model(place).identity
        assert (identity.name, identity.revision) == ("org/thinker", COMMIT)
    assert open_model(snapshot.parent.parent, revision=COMMIT).identity.revision == COMMIT
    assert "snapshot of v2" in refusal(snapshot.parent.parent, revision="v2")


def test_a_hub_id_is_read_from_the_cache(snapshot, monkeypatch):
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(snapshot.parents[2]))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(snapshot.parents[2]))
    opened = open_model("org/thinker", offline=True)
    assert (opened.identity.name, opened.identity.revision) == ("org/thinker", COMMIT)
    assert opened.identity.weights == open_model(snapshot).identity.weights


def test_a_revision_of_a_folder_is_refused(tiny_qwen3_dir):
    assert "expected no revision" in refusal(tiny_qwen3_dir, revision="v2")


def test_shards_and_one_file_are_the_same_model(tiny_qwen3_dir, tiny_qwen3, tmp_path):
    before = open_model(tiny_qwen3_dir).identity.weights
    (tiny_qwen3_dir / "model.safetensors").unlink()
    tiny_qwen3.save_pretrained(tiny_qwen3_dir, max_shard_size="20kB")
    assert len(list(tiny_qwen3_dir.glob("*.safetensors"))) > 1
    assert open_model(tiny_qwen3_dir).identity.weights == before


def test_a_folder_called_as_the_bundled_model_is_itself(tiny_qwen3_dir, tmp_path, monkeypatch):
    shutil.copytree(tiny_qwen3_dir, tmp_path / "tiny-thinker")
    monkeypatch.chdir(tmp_path)
    ours = open_model(tiny_qwen3_dir)
    for name in (Path("tiny-thinker"), "./tiny-thinker"):
        opened = open_model(name)
        assert opened.identity.weights == ours.identity.weights
        assert opened.untrained(3).identity.weights == ours.untrained(3).identity.weights
    assert open_model("tiny-thinker").identity.weights != ours.identity.weights


def test_only_bundled_weights_have_the_recipes_twin(tiny_qwen3):
    opened = assemble(tiny_qwen3, build_tokenizer(), "tiny-thinker")
    assert opened.untrained(1).identity.weights != opened.untrained(2).identity.weights
    early = open_model("tiny-thinker:early")
    assert early.untrained(1).identity.weights == open_model("tiny-thinker:untrained").identity.weights
    assert early.initial_seed == bundled.initial_seed()
