"""Opening a model: what it is, its untrained twin, and one line for everything that can be wrong with a checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import open_model
from normprobe.models.sites import record_sites
from normprobe.problems import bundled


def logits(opened: OpenModel) -> torch.Tensor:
    with torch.no_grad():
        return opened.model(torch.arange(10, 20)[None]).logits


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(NormprobeError) as told:
        open_model(*arguments, **options)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_directory_opens_with_all_its_parts(tiny_qwen3_dir, tiny_qwen3):
    opened = open_model(tiny_qwen3_dir)
    torch.testing.assert_close(logits(opened), tiny_qwen3(torch.arange(10, 20)[None]).logits)
    identity = opened.identity.to_dict()
    assert json.loads(json.dumps(identity)) == identity
    assert (identity["n_layers"], identity["d_model"], identity["dtype"]) == (4, 32, "float32")
    assert not opened.model.training


def test_the_logit_lens_of_the_last_site_is_the_model(tiny_qwen3_dir):
    opened = open_model(tiny_qwen3_dir)
    with record_sites(opened) as sites:
        expected = logits(opened)
        torch.testing.assert_close(opened.unembed(sites.states[-1]), expected)


def test_the_fingerprint_tells_weights_but_not_dtypes_apart(tiny_qwen3_dir):
    opened = open_model(tiny_qwen3_dir)
    assert open_model(tiny_qwen3_dir, dtype="bfloat16").identity.weights == opened.identity.weights
    assert opened.untrained(0).identity.weights != opened.identity.weights


def test_the_untrained_twin_differs_in_its_weights_only(tiny_qwen3_dir):
    opened = open_model(tiny_qwen3_dir)
    before, state = logits(opened), torch.random.get_rng_state()
    twin = opened.untrained(seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(logits(opened), before)
    assert torch.equal(logits(twin), logits(opened.untrained(seed=1)))
    assert not torch.equal(logits(twin), logits(opened.untrained(seed=2)))
    assert twin.model.config.to_dict() == opened.model.config.to_dict()
    assert not twin.model.training


@pytest.mark.parametrize(
    "name, told",
    [
        ("nope/nothing", "bundled"),
        ("/nope/nothing", "no such directory"),
        ("./nothing", "no such directory"),
        (Path("nothing"), "no such directory"),
        ("a b", "Repo id"),
        ("", "empty name"),
        ("tiny-thinker:late", "tiny-thinker:early"),
    ],
)
def test_an_unknown_name_is_told(name, told):
    assert told in refusal(name)


def test_offline_means_the_local_cache():
    assert "not in the local cache" in refusal("nope/nothing", offline=True)


def test_a_file_is_not_a_directory(tiny_qwen3_dir):
    assert "a file" in refusal(tiny_qwen3_dir / "config.json")


def test_a_module_that_is_no_bridge_is_refused():
    assert "got Linear" in refusal(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    "options, told",
    [
        ({"dtype": "int8"}, "expected a dtype"),
        ({"device": "abacus"}, "a device"),
        ({"device": "cuda:99"}, "a device"),
    ],
)
def test_an_impossible_option_is_told(tiny_qwen3_dir, options, told):
    assert told in refusal(tiny_qwen3_dir, **options)


def configured(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def written(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def removed(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def halved(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


OWN_CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}


@pytest.mark.parametrize(
    "damage, told",
    [
        (removed("config.json"), "without config.json"),
        (written("config.json", "{"), "not a valid JSON"),
        (configured(model_type="martian"), "martian"),
        (configured(model_type="t5"), "got architecture 't5'"),
        (configured(model_type="martian", auto_map=OWN_CODE), "trust_remote_code=True"),
        (configured(num_hidden_layers=5, layer_types=None), "model.layers.4"),
        (configured(hidden_size=64), "fit the configuration"),
        (halved, "corrupt or truncated"),
        (written("model.safetensors", "junk"), "corrupt or truncated"),
        (removed("model.safetensors"), "no file named model.safetensors"),
        (removed("tokenizer.json", "tokenizer_config.json"), "a tokenizer with the weights"),
        (written("tokenizer.json", '{"a": 1'), "a tokenizer with the weights"),
        (removed("chat_template.jinja"), "a chat template"),
        (written("chat_template.jinja", "{% if %}"), "a chat template that renders"),
    ],
)
def test_a_damaged_checkpoint_is_told(tiny_qwen3_dir, damage, told):
    damage(tiny_qwen3_dir)
    assert told in refusal(tiny_qwen3_dir)


def test_the_cause_is_kept(tiny_qwen3_dir):
    halved(tiny_qwen3_dir)
    with pytest.raises(NormprobeError) as told:
        open_model(tiny_qwen3_dir)
    assert told.value.__cause__ is not None


def test_pickled_weights_are_never_read(tiny_qwen3_dir):
    """Had they been unpickled, the folder would be gone."""

    class Bomb:
        def __reduce__(self):
            return shutil.rmtree, (str(tiny_qwen3_dir),)

    torch.save(Bomb(), tiny_qwen3_dir / "pytorch_model.bin")
    (tiny_qwen3_dir / "model.safetensors").unlink()
    assert "safetensors" in refusal(tiny_qwen3_dir)
    assert tiny_qwen3_dir.is_dir()


def test_the_bundled_model_opens_with_its_controls():
    trained, early, untrained = (open_model(name) for name in bundled.MODELS if name.startswith("tiny"))
    prints = {opened.identity.weights for opened in (trained, early, untrained)}
    assert len(prints) == 3
    assert untrained.identity.name == "tiny-thinker:untrained"
    assert trained.untrained(seed=5).identity.weights == untrained.identity.weights
