"""What the files of a model name: an adapter a base, a hub's cache snapshots, a configuration sizes, an index files."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from fuzz.hostile import Files
from fuzz.reader import as_json


def adapters() -> list[Files]:
    adapter = {
        "base_model_name_or_path": "../models--org--A",
        "revision": "main",
        "peft_type": "LORA",
        "r": 8,
    }
    return [
        {
            "adapter/adapter_config.json": as_json(adapter),
            "models--org--A/refs/main": b"1a2b3c",
            "models--org--A/snapshots/1a2b3c/config.json": b"{}",
            "models--org--A/snapshots/1a2b3c/tokenizer.json": b"{}",
        }
    ]


def read_adapter(folder: Path) -> None:
    from normprobe.local_files import base_of, fingerprint, local_path

    name, revision = base_of(folder / "adapter")
    found = local_path(name, revision) if "models--" in name else None
    assert found is None or found.resolve().is_relative_to(folder.resolve()), f"{found} is outside"
    if found is not None:
        fingerprint(str(folder / "adapter"))


@functools.cache
def _checkpoint() -> Files:
    """A tiny model of 2 layers, its weights in several files that an index names."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        Qwen3ForCausalLM(config).save_pretrained(folder, max_shard_size="6KB")
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def configurations() -> list[Files]:
    own = json.loads(_checkpoint()["config.json"])
    experts = own | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 4}
    experts |= {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
    parts = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}
    parts |= {"text_config": own | {"model_type": "gemma3_text"}}
    return [{"config.json": as_json(content)} for content in (own, experts, parts)]


def read_configuration(folder: Path) -> None:
    from normprobe.local_files import configuration_of
    from normprobe.models.pretrained import Pretrained
    from normprobe.reading_plan import Shape

    try:
        content = configuration_of(str(folder))
    except ValueError:  # what is no JSON: opening it says so
        content = None
    if content is not None:
        Shape.of(content, 2)
    _ = Pretrained(str(folder), offline=True).config


def checkpoints() -> list[Files]:
    return [_checkpoint()]


def read_checkpoint(folder: Path) -> None:
    import torch

    from normprobe.models.pretrained import Pretrained

    Pretrained(str(folder), offline=True).model(torch.float32, "cpu")
