"""What the small files of a checkpoint tell is refused before its weights are read, in one line that names it."""

import json
import os
import warnings

import pytest
from transformers import GenerationConfig, Qwen3ForCausalLM

from normprobe.errors import NormprobeError
from normprobe.models.open import UnfollowedWarning, open_model
from normprobe.models.requirements import unfollowed_settings
from normprobe.problems.testbed.tokenizer import build_tokenizer


def configure(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def refusal(folder) -> str:
    """What opening says of a checkpoint whose weights are not even there."""
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(NormprobeError) as refused:
        open_model(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "settings, method",
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"bits": 4}, "an unnamed method"),
    ],
)
def test_quantized_weights_are_refused_by_their_method(tiny_qwen3_dir, settings, method):
    configure(tiny_qwen3_dir, quantization_config=settings)
    assert f"quantized with {method}" in refusal(tiny_qwen3_dir)


@pytest.mark.parametrize(
    "types", [["linear_attention", "full_attention"] * 2, ["conv"] * 4, ["full_attention", "hybrid"] * 2]
)
def test_layers_that_are_no_attention_are_refused_by_their_type(tiny_qwen3_dir, types):
    configure(tiny_qwen3_dir, layer_types=types)
    told = refusal(tiny_qwen3_dir)
    if "be in ('full_attention'" not in told:  # so an older Transformers refuses a type that it does not know
        assert (set(types) - {"full_attention"}).pop() in told
        assert "a model of attention layers" in told


def index_of(folder, name: str, shard: str) -> None:
    """An index of weights in place of the weights."""
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": shard}}))


@pytest.mark.parametrize("shard", ["/dev/zero", "../model.safetensors", "a/../../model.safetensors", "."])
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "sub/other.safetensors.index.json"])
def test_an_index_of_weights_names_files_of_its_folder(tiny_qwen3_dir, name, shard):
    """Transformers itself would read /dev/zero until no memory is left."""
    index_of(tiny_qwen3_dir, name, shard)
    if "sub" in name:
        configure(tiny_qwen3_dir, transformers_weights=name)
    assert refusal(tiny_qwen3_dir).startswith("expected weights in files of its folder in")


@pytest.mark.parametrize(
    "named", ["../x.safetensors", "/dev/zero.safetensors", "../x.safetensors.index.json"]
)
def test_weights_that_the_configuration_names_are_in_its_folder(tiny_qwen3_dir, named):
    configure(tiny_qwen3_dir, transformers_weights=named)
    assert refusal(tiny_qwen3_dir).startswith("expected weights in files of its folder in")


def test_an_index_of_a_name_that_no_file_has(tiny_qwen3_dir):
    index_of(tiny_qwen3_dir, "model.safetensors.index.json", "x" * 5000)
    assert "expected the index of weights in" in refusal(tiny_qwen3_dir)


def test_an_index_that_cannot_be_read(tiny_qwen3_dir):
    index_of(tiny_qwen3_dir, "model.safetensors.index.json", "")
    (tiny_qwen3_dir / "model.safetensors.index.json").write_text("{")
    assert "expected the index of weights in" in refusal(tiny_qwen3_dir)


def test_an_index_that_nobody_reads_is_no_matter(tiny_qwen3_dir):
    (tiny_qwen3_dir / "model.safetensors.index.json").write_text("{")
    os.mkfifo(tiny_qwen3_dir / "x.safetensors.index.json")
    assert open_model(tiny_qwen3_dir)


def test_an_index_that_is_no_file_is_not_waited_for(tiny_qwen3_dir):
    os.mkfifo(tiny_qwen3_dir / "model.safetensors.index.json")
    assert "safetensors" in refusal(tiny_qwen3_dir)


def test_a_template_that_cannot_think_is_refused_before_the_weights(tiny_qwen3_dir):
    (tiny_qwen3_dir / "chat_template.jinja").unlink()
    assert "a chat template" in refusal(tiny_qwen3_dir)


def test_a_token_in_use_without_a_row_is_named(tiny_qwen3_dir):
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<plan>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>", "<plan> <think>")
    tokenizer.save_pretrained(tiny_qwen3_dir)
    told = refusal(tiny_qwen3_dir)
    assert f"got '<plan>' with id {len(tokenizer) - 1} and {len(tokenizer) - 1} rows" in told
    assert "resize_token_embeddings" in told


def test_a_token_that_nothing_uses_needs_no_row(tiny_qwen3_dir):
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<image_soft_token>"])
    tokenizer.save_pretrained(tiny_qwen3_dir)
    assert open_model(tiny_qwen3_dir).identity.vocab == len(tokenizer) - 1


def test_a_resized_embedding_opens(tiny_qwen3_dir):
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<plan>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>", "<plan> <think>")
    model = Qwen3ForCausalLM.from_pretrained(tiny_qwen3_dir)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(tiny_qwen3_dir)
    tokenizer.save_pretrained(tiny_qwen3_dir)
    assert open_model(tiny_qwen3_dir).identity.vocab == len(tokenizer)


def test_a_penalty_in_the_generation_settings_is_named(tiny_qwen3_dir):
    file = tiny_qwen3_dir / "generation_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 1.05, "temperature": 0.6})
    )
    with pytest.warns(UnfollowedWarning, match=r"asks for repetition_penalty=1.05 in generation_config.json"):
        open_model(tiny_qwen3_dir)


def test_settings_of_sampling_and_neutral_ones_are_nothing_to_tell():
    neutral = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.95, repetition_penalty=1.0, no_repeat_ngram_size=0
    )
    assert unfollowed_settings(neutral) == {}
    assert unfollowed_settings(None) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = GenerationConfig(suppress_tokens=[1], num_beams=4)
    assert unfollowed_settings(asked) == {"suppress_tokens": [1], "num_beams": 4}
