"""A GGUF file opens like any model: its own weights and tokenizer, an untrained twin, saving, every dtype."""

import sys

import pytest
import torch
import transformers
from gguf_fixture import write_gguf

from normprobe.errors import NormprobeError
from normprobe.local_files import fingerprint
from normprobe.models import gguf_files
from normprobe.models.open import open_model

misread = pytest.mark.skipif(
    tuple(map(int, transformers.__version__.split(".")[:2])) < gguf_files.READS_ENDS,
    reason="this Transformers misreads which token ends a text",
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    return path


@misread
def test_its_weights_are_the_models(tmp_path):
    path = tmp_path / "tiny.Q8_0.gguf"
    written = write_gguf(path, quantized=True)
    opened = open_model(path)
    held = opened.model.state_dict()
    for ours, theirs in [
        ("model.embed_tokens", "token_embd"),
        ("model.layers.1.mlp.down_proj", "blk.1.ffn_down"),
    ]:
        expected = torch.from_numpy(written[f"{theirs}.weight"])
        torch.testing.assert_close(held[f"{ours}.weight"], expected)
    assert opened.model.get_output_embeddings().weight is opened.model.get_input_embeddings().weight
    assert (opened.identity.n_layers, opened.context) == (2, 512)
    assert opened.identity.name == str(path)


@misread
def test_it_is_an_ordinary_model_from_then_on(file, tmp_path):
    opened = open_model(file)
    twin = opened.untrained(0)
    assert twin.identity.weights != opened.identity.weights
    opened.model.save_pretrained(tmp_path / "saved")
    opened.tokenizer.save_pretrained(tmp_path / "saved")
    again = open_model(tmp_path / "saved")
    assert again.identity.weights == opened.identity.weights
    ids = torch.tensor([opened.chat.prompt_ids("2 + 3", "think")])
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids).logits, opened.model(ids).logits)
    assert open_model(file, dtype="bfloat16").identity.dtype == "bfloat16"


@misread
def test_its_prompts_are_those_of_its_own_template(file):
    opened = open_model(file)
    ids = opened.chat.prompt_ids("2+3?", "no_think")
    assert opened.tokenizer.decode(ids).endswith(
        "2+3?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_its_fingerprint_is_of_what_it_holds(file, tmp_path):
    other = tmp_path / "elsewhere" / "renamed.gguf"
    other.parent.mkdir()
    other.write_bytes(file.read_bytes())
    before = fingerprint(str(file))
    write_gguf(file, quantized=True)
    assert fingerprint(str(file)) != before


def refusal(*arguments) -> str:
    with pytest.raises(NormprobeError) as refused:
        open_model(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_wrong_with_it_is_one_line(file, tmp_path, monkeypatch):
    assert "no such file" in refusal("nothing.gguf")
    assert f"such as {file}" in refusal(tmp_path)
    file.write_bytes(file.read_bytes()[:3000])
    assert str(file) in refusal(file)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'normprobe[gguf]'" in refusal(file)


def test_a_transformers_that_misreads_which_token_ends_a_text_is_refused(monkeypatch):
    monkeypatch.setattr(gguf_files.transformers, "__version__", "5.17.2")
    with pytest.raises(NormprobeError, match=r"transformers 5\.18 or newer .* got 5\.17\.2"):
        gguf_files.needs_gguf("tiny.gguf")
