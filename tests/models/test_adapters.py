"""An adapter is merged into its base, wherever that lies, or refused in one line; it is never ignored."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import Qwen3ForCausalLM

from normprobe.errors import NormprobeError
from normprobe.local_files import fingerprint
from normprobe.models.open import open_model
from normprobe.problems.testbed.tokenizer import build_tokenizer

# peft asks Transformers for an attribute by its old name, and warns of tied embeddings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]
IDS = torch.arange(10, 20)[None]


def adapted(base: Qwen3ForCausalLM, folder, **settings):
    """Save a LoRA that changes something; returns its logits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings |= {"r": 2, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
        model = get_peft_model(base, LoraConfig(**settings))
    model.save_pretrained(folder)
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.fixture
def adapter(tiny_qwen3_dir, tmp_path):
    """The folder of an adapter, and the logits that it should give."""
    base = Qwen3ForCausalLM.from_pretrained(tiny_qwen3_dir)
    return tmp_path / "adapter", adapted(base, tmp_path / "adapter")


def configure(folder, **changes) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(*arguments) -> str:
    with pytest.raises(NormprobeError) as refused:
        open_model(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_adapter_is_merged_into_its_base(adapter, tiny_qwen3_dir):
    folder, expected = adapter
    opened = open_model(folder)
    with torch.no_grad():
        torch.testing.assert_close(opened.model(IDS).logits, expected)
    assert type(opened.model) is Qwen3ForCausalLM
    assert opened.identity.name == str(folder)
    assert opened.identity.weights != open_model(tiny_qwen3_dir).identity.weights
    assert opened.untrained(0).identity.weights == open_model(tiny_qwen3_dir).untrained(0).identity.weights


def test_its_base_is_looked_for_from_its_folder_too(adapter, tiny_qwen3_dir):
    folder, expected = adapter
    configure(folder, base_model_name_or_path=f"../{tiny_qwen3_dir.name}")
    with torch.no_grad():
        torch.testing.assert_close(open_model(folder).model(IDS).logits, expected)


def test_its_fingerprint_depends_on_its_base(adapter, tiny_qwen3_dir, make_tiny_qwen3):
    folder, _ = adapter
    before = fingerprint(str(folder))
    make_tiny_qwen3(seed=1).save_pretrained(tiny_qwen3_dir)
    assert fingerprint(str(folder)) != before


def test_rows_that_it_adds_to_the_embedding_enlarge_the_base(tiny_qwen3_dir, tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<plan>"])
    base = Qwen3ForCausalLM.from_pretrained(tiny_qwen3_dir)
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    expected = adapted(base, tmp_path / "adapter", modules_to_save=["embed_tokens"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    opened = open_model(tmp_path / "adapter")
    assert opened.identity.vocab == len(tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(opened.model(IDS).logits, expected)


def test_beside_full_weights_it_is_refused(adapter, tiny_qwen3_dir):
    shutil.copy(adapter[0] / "adapter_config.json", tiny_qwen3_dir)
    assert "full weights or an adapter" in refusal(tiny_qwen3_dir)


def test_a_base_that_is_not_there_is_one_line(adapter):
    for name in ("/nope/base", "nope/base"):
        configure(adapter[0], base_model_name_or_path=name)
        assert f"got {name!r}" in refusal(adapter[0])
    configure(adapter[0], base_model_name_or_path=None)
    assert "names its base model" in refusal(adapter[0])


def test_weights_that_do_not_fit_are_refused(adapter, tiny_qwen3_dir, make_tiny_qwen3):
    folder, _ = adapter
    make_tiny_qwen3(n_layers=2).save_pretrained(tiny_qwen3_dir)
    assert "that fits Qwen3ForCausalLM" in refusal(folder)
    make_tiny_qwen3(n_layers=5).save_pretrained(tiny_qwen3_dir)
    assert "that fits Qwen3ForCausalLM" in refusal(folder)
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert "an adapter in" in refusal(folder)
    file.unlink()
    assert "pickled weights are never read" in refusal(folder)


def test_prompts_cannot_be_merged(tiny_qwen3_dir, tmp_path):
    base = Qwen3ForCausalLM.from_pretrained(tiny_qwen3_dir)
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(base, settings).save_pretrained(tmp_path / "prompts")
    assert "that can be merged" in refusal(tmp_path / "prompts")
