"""A call of `model.generate` before its first token: how long its prompt is, and what a policy cannot follow."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import Cache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

from normprobe.errors import NormprobeError

_BEAMS = "beams move from row to row, and the history of a policy stays with its row"
_DRAFTS = "a pass over a draft holds several new tokens of a row, of which some are thrown away"
_OWN_LOOP = "it is a decoding loop of its own, whose passes may be anything"
_REFUSED: dict[str, tuple[object, str]] = {
    "num_beam_groups": (1, _BEAMS),
    "constraints": (None, _BEAMS),
    "force_words_ids": (None, _BEAMS),
    "num_beams": (1, _BEAMS),
    "prompt_lookup_num_tokens": (None, _DRAFTS),
    "assistant_model": (None, _DRAFTS),
    "assistant_early_exit": (None, _DRAFTS),
    "use_mtp": (False, _DRAFTS),
    "is_assistant": (False, "the drafts of an assistant are thrown away in part"),
    "guidance_scale": (1, "every token takes passes on two prompts, and a policy follows one"),
    "custom_generate": (None, _OWN_LOOP),
    "penalty_alpha": (0, _OWN_LOOP),
    "dola_layers": (None, _OWN_LOOP),
    "token_healing": (False, "the end of the prompt is rewritten by a generation of its own"),
    "use_cache": (True, "each pass would hold all tokens, and a policy acts on the newest"),
}
"""Setting → the value with which it is off, and why it cannot be on. Of two that go together, the telling one first."""


@dataclass(frozen=True)
class GenerateCall:
    """What tells the passes of a call from each other.

    n_prompt: the tokens of each row before the first new one, padding and cached ones included.
    ends: the tokens that end a response.
    """

    n_prompt: int
    ends: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> GenerateCall:
        """The call model.generate(*args, **kwargs).

        Raises NormprobeError for a way of decoding that a policy cannot follow, or a cache that the prompt does not
        continue.
        """
        given = inspect.signature(cast(Any, GenerationMixin).generate).bind(model, *args, **kwargs).arguments
        others: dict[str, Any] = given.pop("kwargs", {})
        config, _ = model._prepare_generation_config(given.get("generation_config"), **others)
        _refuse_decoding(config, given)
        _check_padding(model, others.get("attention_mask"))
        return cls(_n_prompt(config, others | given), end_tokens(config))


def end_tokens(config: GenerationConfig | None) -> tuple[int, ...]:
    """The tokens that end a response."""
    ends = None if config is None else config.eos_token_id
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(map(int, ends))


def _refuse_decoding(config: GenerationConfig, given: Mapping[str, Any]) -> None:
    asked = {name: given.get(name, getattr(config, name, None)) for name in _REFUSED}
    for processor in given.get("logits_processor") or ():
        if isinstance(processor, UnbatchedClassifierFreeGuidanceLogitsProcessor):
            asked["guidance_scale"] = processor.guidance_scale
    for name, (off, why) in _REFUSED.items():
        value = asked[name]
        if value is None or value == off:
            continue
        shown = value if isinstance(value, int | float | str) else type(value).__name__
        raise NormprobeError(
            f"expected generate() with {name}={off} inside intervene, got {shown}; {why}: give {name}={off}"
        )


def _check_padding(model: PreTrainedModel, mask: object) -> None:
    """Padding between two turns is no matter to full attention, but takes room in a sliding window."""
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return
    if not bool(mask[:, -1].all()):
        raise NormprobeError(
            "expected prompts padded on the left, got padding on the right; set padding_side='left'"
        )
    config = model.config.get_text_config()
    one_kind = "full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"
    full = set(getattr(config, "layer_types", None) or [one_kind]) == {"full_attention"}
    if not full and bool((mask[:, 1:] < mask[:, :-1]).any()):
        raise NormprobeError(
            "expected padding on the left alone, for a model with sliding windows, got some after it, which would take "
            "room in the window; continue each conversation in a call of its own"
        )


def _n_prompt(config: GenerationConfig, given: Mapping[str, Any]) -> int:
    embeds, mask = given.get("inputs_embeds"), given.get("attention_mask")
    ids = given["inputs"] if given.get("inputs") is not None else given.get("input_ids")
    if embeds is not None and config.prefill_chunk_size is not None:
        raise NormprobeError(
            f"expected a prompt of token ids with prefill_chunk_size={config.prefill_chunk_size}, got inputs_embeds, "
            "which generate() does not cut; give one of the two"
        )
    prompt = ids if embeds is None else embeds
    if prompt is None:
        return 1  # generate() begins with the token for that
    if not isinstance(prompt, torch.Tensor) or prompt.ndim < 2:
        raise NormprobeError(
            f"expected token ids as a tensor [row, token], got {type(prompt).__name__}; "
            "a tokenizer's output goes in as generate(**output)"
        )
    rows, tokens = prompt.shape[:2]
    masked = mask.shape[1] if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None
    # By type: transformers 5.24 calls it `cache`, before that it was `past_key_values`.
    cache = next((value for value in given.values() if isinstance(value, Cache)), None)
    cached = 0 if cache is None else int(cache.get_seq_length())
    if cache is not None and cached:
        _check_rows(cache, rows * (config.num_return_sequences or 1))
    total = tokens if masked is None else masked
    if not (cached < tokens == total or (embeds is None and 0 < cached < cached + tokens == total)):
        raise NormprobeError(
            f"expected the tokens of the whole conversation, of which {cached} are in the cache, or the new ones with "
            f"an attention_mask over all, got {tokens} tokens and "
            f"{'no mask' if masked is None else f'a mask over {masked}'}; give the whole conversation"
        )
    return total


def _check_rows(cache: Cache, rows: int) -> None:
    states = [getattr(layer, "keys", None) for layer in cache.layers]
    keys = [one for one in states if isinstance(one, torch.Tensor) and one.ndim == 4]
    if keys and len(keys[0]) != rows:
        raise NormprobeError(
            f"expected a cache of {rows} rows, one for each sequence, got {len(keys[0])}; give one row per sequence, "
            "or repeat the cache's with cache.batch_repeat_interleave"
        )
