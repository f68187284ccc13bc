"""How much is read at once: batches, chunks and slices that fit into a budget of memory, from a model's shape alone.

Everything here is counted from config.json, so that a plan can be shown before any weights are there. The counts are
what a plain decoder holds; they are upper estimates, benchmarks/tracing.py measures real peaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from normprobe.errors import NormprobeError

PASS_BYTES = 2**27
"""What the tokens of one forward pass hold at once, where memory allows it. More are no faster."""
RESPONSES_AT_ONCE = 64
"""Responses of one forward pass."""
SMALL = 8
"""Scores or logits that are no more than this multiple of the scratch are not cut into blocks."""
FEWEST_TOKENS = 16
"""A forward pass of fewer reads all weights for so little that a response would take for ever."""
SCRATCH = {"cpu": 2**20, "cuda": 2**26}
"""Scores or logits at once, where memory allows them: what stays in a processor's cache, and what keeps a GPU busy."""
LEAST_SCRATCH = 2**12
FLOAT = 4
_NAMES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_key_value_heads": (),
    "head_dim": (),
    "num_experts": ("num_local_experts",),
    "num_experts_per_tok": (),
    "intermediate_size": ("n_inner", "ffn_dim"),
    "vocab_size": (),
}
"""A size in config.json → what older architectures call it."""
LARGEST = 2**31
"""Above every size of a model: a larger one is a damaged file."""


@dataclass(frozen=True)
class Shape:
    """What of a model decides how much memory reading takes.

    intermediate: width of the feed-forward layer, over all experts that one token passes. itemsize: bytes of a number
    in the model's dtype. parameters: of a decoder of this shape, nearly (norms and biases are left out).
    """

    layers: int
    d: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    itemsize: int
    parameters: int

    @classmethod
    def of(cls, config: Mapping[str, Any], itemsize: int) -> Shape:
        """From the content of config.json (of its text part, where a model has others).

        Raises NormprobeError for one that does not tell its sizes under any name known here, or not as whole numbers.
        """
        parts = config.get("text_config")
        config = parts if parts and isinstance(parts, Mapping) else config
        known = {name: _first(config, name, *others) for name, others in _NAMES.items()}
        if lacking := [
            name
            for name in ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
            if not known[name]
        ]:
            raise NormprobeError(
                f"expected a configuration that tells {', '.join(lacking)}, got one of {config.get('model_type')!r} "
                "without; use a decoder such as Qwen3"
            )
        d, heads, layers = known["hidden_size"], known["num_attention_heads"], known["num_hidden_layers"]
        kv_heads, head_dim = known["num_key_value_heads"] or heads, known["head_dim"] or d // heads
        active, experts = known["num_experts_per_tok"] or 1, known["num_experts"] or 1
        intermediate = _first(config, "moe_intermediate_size") or known["intermediate_size"] or 4 * d
        embeddings = (1 if config.get("tie_word_embeddings") else 2) * known["vocab_size"] * d
        block = 2 * d * (heads + kv_heads) * head_dim + 3 * d * intermediate * experts
        return cls(
            layers=layers,
            d=d,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=active * intermediate,
            vocabulary=known["vocab_size"],
            itemsize=itemsize,
            parameters=embeddings + layers * block,
        )

    @property
    def bytes(self) -> int:
        """Of the weights, nearly."""
        return self.parameters * self.itemsize

    @property
    def cache_per_token(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.itemsize

    @property
    def pass_per_token(self) -> int:
        """Bytes that one token of a forward pass holds: a block's own, and what a layer's state is reduced through."""
        attention = 3 * (self.heads + 2 * self.kv_heads) * self.head_dim * max(self.itemsize, FLOAT)
        block = (8 * self.d + 4 * self.intermediate) * self.itemsize
        return block + attention + 6 * self.d * FLOAT


@dataclass(frozen=True)
class ReadingPlan:
    """The sizes in which responses are read.

    tokens: of one forward pass, padding included: as many responses as fit, or a chunk of one that is longer.
    scratch: attention scores, and logits of the lens, that are held at once in float32.
    peak: bytes above the weights, but for the signals that come out (4 bytes each).
    """

    tokens: int
    scratch: int
    peak: int

    @classmethod
    def of(cls, shape: Shape, longest: int, device: str = "cpu", memory: int | None = None) -> ReadingPlan:
        """For responses of at most `longest` tokens, in `memory` bytes above the weights (None: as it is fastest).

        Raises NormprobeError if not even short chunks fit, and says how much would be needed.
        """
        scratch = SCRATCH["cpu" if device == "cpu" else "cuda"]
        tokens = max(FEWEST_TOKENS, PASS_BYTES // shape.pass_per_token)
        while memory is not None and _peak(shape, longest, tokens, scratch) > memory:
            if tokens <= FEWEST_TOKENS and scratch <= LEAST_SCRATCH:
                need = math.ceil(_peak(shape, longest, tokens, scratch) / 1e7) / 100
                raise NormprobeError(
                    f"expected at least {need:.2f} GB of memory above the weights to read responses of {longest:,} "
                    f"tokens, got {memory / 1e9:.2f}; give --memory {need:.2f} or shorter responses"
                )
            tokens, scratch = max(FEWEST_TOKENS, tokens // 2), max(LEAST_SCRATCH, scratch // 2)
        return cls(tokens, scratch, _peak(shape, longest, tokens, scratch))


def _first(config: Mapping[str, Any], *names: str) -> int:
    """The first of these that the configuration has, the largest where it has one a layer; 0 without any."""
    value = next((config[name] for name in names if config.get(name)), 0)
    sizes = value if isinstance(value, list) else [value]
    if not all(type(size) is int and 0 <= size < LARGEST for size in sizes):
        raise NormprobeError(
            f"expected {names[0]} as a whole number below {LARGEST:,}, got {repr(value)[:60]}; copy the "
            "model's config.json again"
        )
    return max(sizes)


def slices(scratch: int, vocabulary: int) -> tuple[int, int]:
    """Rows and vocabulary entries of one block of logits: half as many rows, more where the vocabulary is small."""
    entries = min(vocabulary, max(1, math.isqrt(scratch) * 2))
    return max(1, scratch // entries), entries


def _peak(shape: Shape, longest: int, tokens: int, scratch: int) -> int:
    """Bytes that reading holds above the weights."""
    chunked = longest > tokens
    seen = longest if chunked else tokens
    cache = shape.cache_per_token * longest if chunked else 0
    # One layer's keys and values: joined to the cache, in float32, and one copy per head; masks of two kinds of layers,
    # twice while they are made.
    attention = (2 * shape.kv_heads + 4 * shape.heads) * shape.head_dim * FLOAT * seen + 4 * tokens * seen
    rows, entries = slices(scratch, shape.vocabulary)
    scores = 3 * FLOAT * max(SMALL * scratch, shape.heads * seen)
    logits = 3 * FLOAT * max(SMALL * scratch, rows * entries)
    return shape.pass_per_token * tokens + cache + max(attention + scores, logits)
