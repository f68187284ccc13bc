"""Open a thinking model: a bundled one, a directory, a GGUF file, an adapter, a hub id, or a TransformerBridge."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from normprobe.errors import NormprobeError
from normprobe.models.architectures import Anatomy, dissect, scale_of, softcap_of
from normprobe.models.chat import Chat
from normprobe.models.identity import identify
from normprobe.models.locate import find
from normprobe.models.model import OpenModel
from normprobe.models.placement import AUTO
from normprobe.models.requirements import check_vocabulary, unfollowed_settings
from normprobe.models.selfcheck import self_check
from normprobe.thinking_formats import ThinkingFormat

if TYPE_CHECKING:
    from normprobe.model_settings import ModelSettings, ThinkingSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TINY = 50_000_000
"""Parameters below which one thread is enough."""


class UnfollowedWarning(UserWarning):
    """A model asks for a way of decoding that is not followed here."""


def open_model(
    name: str | Path | nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    offline: bool = False,
    trust_remote_code: bool = False,
    check: bool = True,
    thinking: ThinkingFormat | Mapping[str, Any] | None = None,
) -> OpenModel:
    """Open a model, find its sites and prove them.

    name: "tiny-thinker" (also ":early", ":untrained"), "smol-thinker:base"; a directory (also a model's
    folder in the hub's cache, and an adapter's, which is merged into its base); a GGUF file (dequantized); a hub id; a
    Transformers model that you hold, with its `tokenizer` (it is put into eval mode; of the other arguments `check` and
    `thinking` count); or a TransformerLens TransformerBridge with unprocessed weights, which is taken as it is (of the
    other arguments only `check` counts).
    device: as torch names it, or "auto": over all GPUs, and what they have no room for on the CPU and the disk.
    offline: never ask a hub. check: prove the sites (see `self_check`; two or three short forward passes).
    thinking: how the model marks its thought and is asked for it (`Chat`); None: its chat template tells.

    Raises NormprobeError for an unknown model, dtype or device, unreadable files, quantized weights, an architecture
    without provable sites or with layers other than attention, a tokenizer without chat template or with tokens that
    the embedding lacks, or a model without a thinking mode. Whatever its small files tell is refused before its weights
    are read. Warns (UnfollowedWarning) of settings in generation_config.json that are not followed.
    """
    if isinstance(name, PreTrainedModel):
        if tokenizer is None:
            raise NormprobeError(
                "expected the tokenizer of a model that is already open, got none; give open_model both"
            )
        called = name.name_or_path or type(name).__name__
        return assemble(name, tokenizer, called, check=check, thinking=thinking)
    if tokenizer is not None and (isinstance(name, str | Path) or _is_bridge(name)):
        called = name if isinstance(name, str | Path) else "a TransformerBridge"
        raise NormprobeError(
            f"expected a tokenizer only with a Transformers model, got one with {called}; leave it out"
        )
    if not isinstance(name, str | Path):
        return _open_bridge(name, check)
    if dtype not in DTYPES:
        raise NormprobeError(f"expected a dtype of {', '.join(DTYPES)}, got {dtype!r}; choose one of these")
    place = AUTO if device == AUTO else _device(device)
    found = find(name, revision, offline, trust_remote_code)
    checkpoint = found.checkpoint
    rows = checkpoint.config.get_text_config().vocab_size
    tokenizer, generation = checkpoint.tokenizer(), checkpoint.generation_config()
    # What its template and its tokens tell is refused before weights are read.
    chat = _chat(tokenizer, generation, thinking)
    if checkpoint.adapter is None:  # an adapter may bring rows of its own
        _check_tokens(tokenizer, chat, rows, checkpoint.where)
    _warn_of(generation, found.name)
    model = checkpoint.model(DTYPES[dtype], place)
    commit = found.revision or (checkpoint.commit if checkpoint.adapter is None else None)
    opened = assemble(model, tokenizer, found.name, revision=commit, check=check, thinking=thinking)
    opened = replace(opened, initial_seed=found.initial_seed)
    return opened.untrained(seed=0) if name == "tiny-thinker:untrained" else opened


def open_for(settings: ModelSettings, thinking: ThinkingSettings) -> OpenModel:
    """The model that a study's settings name. Raises as `open_model`."""
    given = asdict(settings)
    del given["early"], given["engine"], given["tensor_parallel_size"]
    return open_model(given.pop("name"), **given, thinking=thinking.given)


def assemble(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    revision: str | None = None,
    check: bool = True,
    anatomy: Anatomy | None = None,
    thinking: ThinkingFormat | Mapping[str, Any] | None = None,
) -> OpenModel:
    """An OpenModel of a model in memory, to be called `name`. Raises NormprobeError as `open_model` does."""
    chat = _chat(tokenizer, model.generation_config, thinking)
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    _check_tokens(tokenizer, chat, embedding.num_embeddings, name)
    opened = OpenModel(
        model=model.eval(),
        tokenizer=tokenizer,
        anatomy=anatomy or dissect(model),
        chat=chat,
        identity=identify(model, tokenizer, name, revision),
    )
    if check:
        self_check(opened)
    return opened


def use_one_thread_if_tiny(opened: OpenModel) -> None:
    """Run a tiny model on one thread, unless OMP_NUM_THREADS names a number. For commands: it is a process's setting.

    An operation of a tiny model takes microseconds. On a busy machine its threads wait for one another much longer:
    30 times as long a request was measured with two threads as with one.
    """
    if "OMP_NUM_THREADS" not in os.environ and opened.model.num_parameters() < TINY:
        torch.set_num_threads(1)


def _open_bridge(bridge: Any, check: bool) -> OpenModel:
    if not _is_bridge(bridge):
        raise NormprobeError(
            f"expected a name, a directory, a Transformers model or a TransformerBridge, got {type(bridge).__name__}; "
            "give the Transformers model inside (nnsight's is `._module`), or save it and open its directory"
        )
    if bridge.compatibility_mode or bridge._weights_processed:
        raise NormprobeError(
            "expected a TransformerBridge with the checkpoint's own weights, got folded or centred ones, "
            "which change the norms; boot it again without enable_compatibility_mode"
        )
    model = bridge.original_model
    if not isinstance(model, PreTrainedModel):
        raise NormprobeError(
            f"expected a TransformerBridge around a Transformers model, got {type(model).__name__}; "
            "boot it with TransformerBridge.boot_transformers"
        )
    anatomy = Anatomy(
        tuple(bridge.blocks), bridge.ln_final, bridge.unembed, softcap_of(model), scale_of(model)
    )
    return assemble(model, bridge.tokenizer, str(model.name_or_path), check=check, anatomy=anatomy)


def _is_bridge(model: object) -> bool:
    """Whether it is a TransformerBridge. Whoever holds one has imported its class."""
    module = sys.modules.get("transformer_lens.model_bridge")
    return module is not None and isinstance(model, module.TransformerBridge)


def _chat(
    tokenizer: PreTrainedTokenizerBase,
    generation: GenerationConfig | None,
    thinking: ThinkingFormat | Mapping[str, Any] | None,
) -> Chat:
    eos = None if generation is None else generation.eos_token_id
    return Chat(tokenizer, [] if eos is None else [eos] if isinstance(eos, int) else list(eos), thinking)


def _check_tokens(tokenizer: PreTrainedTokenizerBase, chat: Chat, rows: int, where: str) -> None:
    """Raises NormprobeError if a token of a prompt, an end or a mark of thought has no row in the embedding."""
    used = {chat.pad_id, *chat.eos_ids}
    for mode in ("think", "no_think"):
        used.update(chat.prompt_ids("?", mode))
    for mark in (chat.format.open, chat.format.close):
        used.update(tokenizer(mark, add_special_tokens=False)["input_ids"])
    check_vocabulary(tokenizer, rows, used, where)


def _warn_of(generation: GenerationConfig, name: str) -> None:
    if asked := unfollowed_settings(generation):
        settings = ", ".join(f"{setting}={value}" for setting, value in asked.items())
        warnings.warn(
            f"{name} asks for {settings} in generation_config.json, which normprobe does not follow: its responses are "
            "those of the plain logits",
            UnfollowedWarning,
            stacklevel=3,
        )


def _device(device: str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    # torch raises AssertionError where it was built without the device.
    except (RuntimeError, AssertionError, NotImplementedError) as cause:
        raise NormprobeError(
            f"expected a device that torch can use here, or auto, got {device!r}; use cpu"
        ) from cause
    return place
