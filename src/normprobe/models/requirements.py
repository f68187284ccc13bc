"""What a model's configuration, tokenizer and generation settings tell against it before its weights are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.runs.untrusted import read_json

ATTENTION_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")
"""Types of layers (of `config.layer_types`) whose only memory is the keys and values of earlier tokens."""

MOST_PARTS = 2048
"""Layers, or experts, that a model may have: several times what the largest have."""
_COUNTS_PARTS = re.compile(r"n(um)?_(\w+_)?(layers?|experts?)")

_PLAIN: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
    "min_length": 0,
    "num_beams": 1,
}
_CHANGE_LOGITS = (
    *_PLAIN,
    "min_new_tokens",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
)


def check_configuration(config: PreTrainedConfig, where: str) -> None:
    """Raises NormprobeError for what is no causal language model, quantized weights, and layers that hold a state of
    their own (recurrent, convolutional, hybrid), which neither tracing nor a policy would treat rightly."""
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not remote:
        raise NormprobeError(
            f"expected a causal language model, got architecture {config.model_type!r} in {where}; "
            "use a decoder such as Qwen3"
        )
    if (method := quantization_of(config)) is not None:
        raise NormprobeError(
            f"expected weights of 16 or 32 bits, got {where} quantized with {method}; give the model that was "
            "quantized, or a GGUF file of it, whose weights are dequantized"
        )
    types = dict.fromkeys(getattr(config.get_text_config(), "layer_types", None) or ())
    if other := [one for one in types if one not in ATTENTION_LAYERS]:
        raise NormprobeError(
            f"expected layers of attention ({', '.join(ATTENTION_LAYERS)}), got {', '.join(other)} in {where}; "
            "such layers keep a state that is no keys and values: use a model of attention layers"
        )


def check_sizes(content: Mapping[str, Any], where: str) -> None:
    """Raises NormprobeError for a configuration, as its file holds it, of more layers or experts than any model has: to
    build them would take hours before anything else could tell that the file is damaged."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            check_sizes(value, where)
        elif isinstance(value, int) and value > MOST_PARTS and _COUNTS_PARTS.fullmatch(name):
            raise NormprobeError(
                f"expected at most {MOST_PARTS:,} layers or experts, got {name} = {str(value)[:20]} in {where}; "
                "copy its config.json again"
            )


def check_shards(folder: Path, config: PreTrainedConfig) -> None:
    """Raises NormprobeError if the configuration, or the index of weights that Transformers reads, names anything but
    files in the folder: it would read whatever the name leads to, also a device that has no end."""
    named = getattr(config, "transformers_weights", None)
    if named is None and (folder / SAFE_WEIGHTS_NAME).is_file():
        return
    if named is not None:
        _check_inside(folder, [str(named)], folder / CONFIG_NAME)
    index = folder / str(named or SAFE_WEIGHTS_INDEX_NAME)
    if index.suffix != ".json" or not index.is_file():
        return
    with refusing_damage(f"the index of weights in {index}", "copy it again", OSError, ValueError):
        content = read_json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        _check_inside(folder, set(map(str, shards.values())) if isinstance(shards, dict) else (), index)


def _check_inside(folder: Path, names: Iterable[str], named_in: Path) -> None:
    for name in names:
        file = folder / name
        outside = Path(name).is_absolute() or ".." in Path(name).parts
        if outside or (file.exists() and not file.is_file()):
            raise NormprobeError(
                f"expected weights in files of its folder in {named_in}, got {name[:60]!r}; copy the checkpoint again"
            )


def quantization_of(config: PreTrainedConfig) -> str | None:
    """The method that a checkpoint's weights are quantized with, such as "gptq"; None for plain weights."""
    for part in (config, config.get_text_config()):
        found = getattr(part, "quantization_config", None) or getattr(part, "compression_config", None)
        if found is not None:
            content = found if isinstance(found, dict) else found.to_dict()
            method = content.get("quant_method") or content.get("quantization_method") or "an unnamed method"
            return str(getattr(method, "value", method))
    return None


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, used: Iterable[int], where: str) -> None:
    """Raises NormprobeError if a token in use has no row in the embedding: an id of `used`, a token that begins, ends
    or pads a text, or one that the chat template writes.

    rows: of the embedding. Further tokens without a row are let pass: some published tokenizers have such (Gemma 3's
    image tokens), and no text of a study holds them.
    """
    above = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    template = str(tokenizer.chat_template)
    needed: list[Any] = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *used]
    in_use = {token: index for token, index in above.items() if index in needed or token in template}
    for token, index in sorted(in_use.items(), key=lambda item: item[1]):
        raise NormprobeError(
            f"expected a row of the embedding for every token in use, got {token!r} with id {index} and {rows} rows in "
            f"{where}; it was added to the tokenizer and never to the model: take the tokenizer that belongs to the "
            "weights, or call model.resize_token_embeddings(len(tokenizer)), train the new rows and save both"
        )


def unfollowed_settings(generation: GenerationConfig | None) -> dict[str, Any]:
    """What a model's generation_config.json asks for that changes greedy decoding, such as a repetition penalty.

    The engines here take the logits as the model gives them, so that responses are what the traced passes explain.
    """
    asked = {name: getattr(generation, name, None) for name in _CHANGE_LOGITS}
    return {name: value for name, value in asked.items() if value not in (None, [], _PLAIN.get(name))}
