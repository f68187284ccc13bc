"""The base model of smol-thinker, SmolLM2-135M-Instruct, with two of its reserved tokens made into thinking marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from normprobe.models.locate import Found, find
from normprobe.problems import bundled

BASE = "smol-thinker:base"
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


def base_model(dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """SmolLM2-135M-Instruct as it was published. Raises NormprobeError if it is neither installed nor on the hub."""
    return _base(BASE).checkpoint.model(dtype, device)


def published_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of SmolLM2-135M-Instruct. Raises NormprobeError as `base_model` does."""
    return _base(bundled.smollm2()).checkpoint.tokenizer()


def bundled_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer in the package, with marks of a thought. Raises NormprobeError as `base_model` does."""
    return _base(BASE).checkpoint.tokenizer()


def _base(name: str) -> Found:
    return find(name, None, offline=False, trust_remote_code=False)


def thinking_tokenizer(published: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerFast:
    """Write the published tokenizer into `folder`, its reserved tokens renamed and `TEMPLATE` its chat template.

    That is how the tokenizer in the package was made.
    """
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
