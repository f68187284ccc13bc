"""Open a thinking model: a bundled one, a directory, a hub id, or a TransformerBridge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from normprobe.errors import NormprobeError
from normprobe.models.architectures import Anatomy, dissect, softcap_of
from normprobe.models.chat import Chat
from normprobe.models.identity import identify
from normprobe.models.model import BUNDLED, OpenModel
from normprobe.models.pretrained import Pretrained
from normprobe.models.read_template import resolve
from normprobe.models.selfcheck import self_check
from normprobe.thinking_formats import ThinkingFormat

if TYPE_CHECKING:
    from normprobe.config import ModelSettings, ThinkingSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TINY = 50_000_000
"""Parameters below which one thread is enough."""


def open_model(
    name: str | Path | nn.Module,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    offline: bool = False,
    trust_remote_code: bool = False,
    check: bool = True,
    attentions: bool = False,
    thinking: ThinkingFormat | Mapping[str, Any] | None = None,
) -> OpenModel:
    """Open a model, find its sites and prove them.

    name: "tiny-thinker" (also ":early", ":untrained"), a directory, a hub id, or a TransformerLens `TransformerBridge`
    with unprocessed weights, which is taken as it is (of the other arguments only `check` then counts).
    offline: never ask a hub. check: prove the sites (see `self_check`; two or three short forward passes).
    attentions: load with eager attention, which can return its weights.
    thinking: how the model marks its thought and is asked for it (`Chat`); None: its chat template tells.

    Raises NormprobeError for an unknown model, dtype or device, unreadable files, an architecture without provable
    sites, a tokenizer without chat template, or a model without a thinking mode.
    """
    if isinstance(name, nn.Module):
        return _open_bridge(name, check)
    if dtype not in DTYPES:
        raise NormprobeError(f"expected a dtype of {', '.join(DTYPES)}, got {dtype!r}; choose one of these")
    place = _device(device)
    checkpoint = Pretrained(_locate(name), revision, offline, trust_remote_code)
    tokenizer = checkpoint.tokenizer()
    resolve(tokenizer, thinking)  # what its template tells is refused before weights are read
    model = checkpoint.model(DTYPES[dtype], attentions)
    opened = assemble(
        model.to(place),  # type: ignore[arg-type]
        tokenizer,
        str(name),
        revision=revision,
        check=check,
        thinking=thinking,
    )
    return opened.untrained(seed=0) if str(name) == f"{BUNDLED}:untrained" else opened


def open_for(settings: ModelSettings, thinking: ThinkingSettings) -> OpenModel:
    """The model that a study's settings name. Raises as `open_model`."""
    given = asdict(settings)
    given.pop("early")
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
    eos = model.generation_config.eos_token_id if model.generation_config is not None else None
    eos_ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    opened = OpenModel(
        model=model.eval(),
        tokenizer=tokenizer,
        anatomy=anatomy or dissect(model),
        chat=Chat(tokenizer, eos_ids, thinking),
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


def _open_bridge(bridge: nn.Module, check: bool) -> OpenModel:
    # Whoever holds a bridge has paid for this import.
    from transformer_lens.model_bridge import TransformerBridge

    if not isinstance(bridge, TransformerBridge):
        raise NormprobeError(
            f"expected a name, a directory or a TransformerBridge, got {type(bridge).__name__}; "
            "save the model and open its directory"
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
    anatomy = Anatomy(tuple(bridge.blocks), bridge.ln_final, bridge.unembed, softcap_of(model))
    return assemble(model, bridge.tokenizer, str(model.name_or_path), check=check, anatomy=anatomy)


def _locate(name: str | Path) -> str:
    """The directory of a bundled name, else the name; refuses what can only be a path and is no directory."""
    text = str(name)
    if not text:
        raise NormprobeError(
            f"expected a model ({BUNDLED}, a directory or a hub id), got an empty name; give one"
        )
    if text.partition(":")[0] == BUNDLED:
        from normprobe.problems.testbed import bundled

        return str(bundled.path(text))
    path = Path(text).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists() or isinstance(name, Path) or text.startswith(("/", ".", "~")) or text.count("/") > 1:
        got = "a file" if path.exists() else "no such directory"
        raise NormprobeError(
            f"expected a bundled model ({BUNDLED}), a model directory or a hub id, got {text!r} ({got}); check the name"
        )
    return text


def _device(device: str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    # torch raises AssertionError where it was built without the device.
    except (RuntimeError, AssertionError, NotImplementedError) as cause:
        raise NormprobeError(f"expected a device that torch can use here, got {device!r}; use cpu") from cause
    return place
