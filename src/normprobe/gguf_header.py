"""The sizes of a model in a GGUF file (llama.cpp's format), out of its header: no package and no weights are needed.

The format: github.com/ggml-org/ggml, docs/gguf.md. Its readers parse the whole vocabulary, which takes half a minute.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from normprobe.errors import NormprobeError, refusing_damage

NAMES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "vocab_size": "vocab_size",
}
"""What the format calls a size (behind the architecture's name) → what Transformers' configurations call it."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _VOCABULARY = 8, 9, "tokenizer.ggml.tokens"
_OUTPUT = "output.weight"
"""The tensor that a model whose embeddings are tied does without."""
_MOST = 2**31
"""Bytes of a text or entries of an array: more are a sign of damage."""


def sizes_of(file: Path) -> dict[str, Any]:
    """The sizes of a model as its config.json would have them: `NAMES`, and whether embeddings are tied.

    Raises NormprobeError for a file that cannot be read, or of another format.
    """
    kinds = (OSError, struct.error, UnicodeDecodeError, KeyError, MemoryError)
    with refusing_damage(f"a GGUF file in {file}", "download it again", *kinds), file.open("rb") as content:
        magic, version, n_tensors, n_values = struct.unpack("<4sIQQ", content.read(24))
        if magic != b"GGUF" or version < 2:
            raise NormprobeError(
                f"expected GGUF of version 2 or newer in {file}, got {magic!r}, {version}; convert it again"
            )
        values = dict(_value_of(content) for _ in range(n_values))
        tensors = {_tensor_name(content) for _ in range(n_tensors)}
    architecture = values.get("general.architecture", "")
    sizes = {theirs: values.get(f"{architecture}.{ours}") for ours, theirs in NAMES.items()}
    # Those that differ from layer to layer are lists: the largest is what memory must suffice for.
    found = {name: max(size) if isinstance(size, list) else size for name, size in sizes.items() if size}
    return (
        {"vocab_size": values.get(_VOCABULARY, 0)}
        | found
        | {
            "model_type": architecture,
            "tie_word_embeddings": _OUTPUT not in tensors,
        }
    )


def _value_of(content: BinaryIO) -> tuple[str, Any]:
    """The next name with its value; of texts in an array their number."""
    name = _text(content)
    (kind,) = struct.unpack("<I", content.read(4))
    if kind != _ARRAY:
        return name, _text(content) if kind == _STRING else _scalars(content, kind, 1)[0]
    kind, n = struct.unpack("<IQ", content.read(12))
    if kind != _STRING:
        return name, _scalars(content, kind, n)
    for _ in range(_checked(n)):
        content.seek(_checked(struct.unpack("<Q", content.read(8))[0]), 1)
    return name, n


def _tensor_name(content: BinaryIO) -> str:
    """The next tensor's name, read past its shape, type and place."""
    name = _text(content)
    (n_axes,) = struct.unpack("<I", content.read(4))
    content.seek(8 * _checked(n_axes) + 12, 1)
    return name


def _text(content: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", content.read(8))
    return content.read(_checked(length)).decode()


def _scalars(content: BinaryIO, kind: int, n: int) -> list[Any]:
    form = f"<{_checked(n)}{_SCALARS[kind]}"
    return list(struct.unpack(form, content.read(struct.calcsize(form))))


def _checked(n: int) -> int:
    if n > _MOST:
        raise MemoryError(f"{n:,} entries")
    return n
