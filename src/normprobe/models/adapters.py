"""An adapter of PEFT (LoRA and its like), applied to its base model and merged into the weights."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import cast

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.local_files import ADAPTER

WEIGHTS = "adapter_model.safetensors"


def needs_peft(folder: Path) -> None:
    """Raises NormprobeError without the package that applies adapters, or if the folder holds no safetensors."""
    if importlib.util.find_spec("peft") is None:
        raise NormprobeError(
            f"expected the package peft to apply the adapter in {folder}, got none; pip install 'normprobe[peft]'"
        )
    if not (folder / WEIGHTS).is_file():
        raise NormprobeError(
            f"expected {WEIGHTS} beside {ADAPTER} in {folder}, got none; save the adapter as safetensors, "
            "pickled weights are never read"
        )


def merge(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base with the adapter's changes in its own weights, which are then like any others.

    An embedding that the adapter brings with more rows (tokens were added) enlarges the base's first.
    Raises NormprobeError if the adapter is damaged, does not fit the base, leaves a part of itself without weights, or
    is of a kind that cannot be merged (prompts, prefixes).
    """
    from peft import PeftConfig, PeftModel

    fits = f"an adapter in {folder} that fits {type(base).__name__}"
    advice = "check base_model_name_or_path and the files"
    with refusing_damage(fits, advice, ValueError, TypeError, KeyError, OSError, SafetensorError):
        config = PeftConfig.from_pretrained(str(folder))
        saved = _shapes(folder / WEIGHTS)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise NormprobeError(
            f"expected an adapter that can be merged into weights (LoRA and its like), got {config.peft_type} in "
            f"{folder}; merge it yourself and give the merged model"
        )
    rows = [shape[0] for name, shape in saved.items() if "embed_tokens" in name and "lora_" not in name]
    if rows and max(rows) > cast(nn.Embedding, base.get_input_embeddings()).num_embeddings:
        base.resize_token_embeddings(max(rows), mean_resizing=False)
    kinds = (ValueError, TypeError, KeyError, OSError, RuntimeError, SafetensorError, NotImplementedError)
    with refusing_damage(fits, advice, *kinds), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # peft asks Transformers for attributes by their old names
        config.inference_mode = True
        # In the dtype of the base: an adapter's own dtype does not outlast the merging.
        adapted = PeftModel(base, config, autocast_adapter_dtype=False)
        report = adapted.load_adapter(
            str(folder), "default", autocast_adapter_dtype=False, torch_device="cpu"
        )
        # peft writes an embedding that it enlarged twice, once under a name that nothing reads.
        odd = [*report.missing_keys, *(key for key in report.unexpected_keys if "modules_to_save" not in key)]
        if odd:
            raise ValueError(f"{len(odd)} weights without a counterpart, such as {odd[0]}")
        merged = adapted.merge_and_unload(safe_merge=True)
    if hasattr(merged, "peft_config"):
        del merged.peft_config
    return merged


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, framework="pt") as content:
        return {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
