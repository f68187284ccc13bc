"""A model in memory as a study knows it: by what it holds, since no file tells."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from normprobe.local_files import IN_MEMORY
from normprobe.models.model import OpenModel
from normprobe.models.placement import AUTO, is_spread, weights_of

_OF_FILES = ("_name_or_path", "transformers_version", "architectures", "dtype")
"""Settings that say where weights came from, or that the weights say themselves."""


def settings_of(opened: OpenModel) -> dict[str, Any]:
    """The section `model` of the study of a model in memory: a name of its own, its dtype, and its device.

    The name is the SHA-256 of all that its files would hold: configuration, every weight whole (about a second per
    gigabyte), tokenizer, chat template, ends, and the thinking format. Forward hooks are not in it.
    """
    config = opened.model.config.to_dict()
    config = {name: value for name, value in config.items() if name not in _OF_FILES}
    chat, identity = opened.chat, opened.identity
    facts = [
        config,
        identity.tokenizer,
        identity.chat_template,
        chat.eos_ids,
        chat.pad_id,
        chat.format.to_dict(),
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, value in sorted(weights_of(opened.model)):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return {
        "name": f"{IN_MEMORY}{identity.architecture}:{digest.hexdigest()}",
        "dtype": identity.dtype,
        "device": AUTO if is_spread(opened.model) else str(opened.device),
    }
