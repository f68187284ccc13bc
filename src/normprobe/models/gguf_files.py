"""Weights out of a GGUF file (llama.cpp's format): dequantized, and from then on an ordinary model."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from normprobe.errors import NormprobeError

READS_ENDS = (5, 18)
"""The Transformers that first reads which token ends a text: older ones take the token that begins it."""


def needs_gguf(where: str) -> None:
    """Raises NormprobeError without the package that reads the format, or with a Transformers that misreads it."""
    if importlib.util.find_spec("gguf") is None:
        raise NormprobeError(
            f"expected the package gguf to read {where}, got none; pip install 'normprobe[gguf]'"
        )
    version = transformers.__version__
    if tuple(map(int, version.split(".")[:2])) < READS_ENDS:
        raise NormprobeError(
            f"expected transformers {READS_ENDS[0]}.{READS_ENDS[1]} or newer to read {where}, got {version}, which "
            "takes the token that begins a text for the one that ends it; pip install -U transformers"
        )


def gguf_arguments(config: PreTrainedConfig) -> dict[str, Any]:
    """What `from_pretrained` needs beyond the file's name: weights of numbers, not of packed blocks.

    config: of the file. Transformers would parse the whole vocabulary once more for it, which takes seconds.
    """
    # Before transformers 5.20 or so there was no other way, and nothing to ask for.
    dequantized = getattr(transformers, "GgufConfig", None)
    quantization = {} if dequantized is None else {"quantization_config": dequantized(dequantize=True)}
    return {"config": copy.deepcopy(config), **quantization}


def plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that knows of no quantization: one that loads from GGUF refuses to be saved or cast.

    Nothing is copied.
    """
    config = model.config
    for name in ("quantization_config", "_pre_quantization_dtype"):
        config.__dict__.pop(name, None)
    with torch.device("meta"):
        same = type(model)._from_config(
            config, attn_implementation=config._attn_implementation, dtype=model.dtype
        )
    same.load_state_dict(model.state_dict(), assign=True)
    for name, buffer in model.named_buffers():  # those that are in no state dict, such as rotary frequencies
        owner, _, last = name.rpartition(".")
        same.get_submodule(owner)._buffers[last] = buffer
    same.tie_weights()
    same.generation_config = model.generation_config
    return same
