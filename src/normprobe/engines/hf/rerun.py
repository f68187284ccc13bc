"""Run a decoder block once more on its own output, for the last token of some rows, without writing to the cache.

The arguments of the block's call are kept until its policy has run, with the keys and values that the cache gave back,
which hold the token's own. The extra pass gets the same, cut to the last token and to the chosen rows, and a cache that
stores nothing: whatever the kind of cache (dynamic, sliding, static), the real one is never touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import nn
from transformers import Cache

from normprobe.errors import NormprobeError
from normprobe.policies.rows import RowMask, RowStates

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass
class RecordingCache:
    """A cache that passes every call on to the real one and keeps the keys and values that it returned."""

    cache: Cache
    given: dict[int, KeysValues] = field(default_factory=dict)

    def update(self, keys: Any, values: Any, layer_idx: int, *rest: Any, **more: Any) -> Any:
        self.given[layer_idx] = self.cache.update(keys, values, layer_idx, *rest, **more)
        return self.given[layer_idx]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)


class ReadOnlyCache(RecordingCache):
    """The same for the extra pass: it returns what it has been given and stores nothing."""

    def update(self, keys: Any, values: Any, layer_idx: int, *rest: Any, **more: Any) -> Any:
        return self.given[layer_idx]


@dataclass
class BlockCall:
    """The arguments of a block in the present pass, with which it can run once more (`Rerun` of policies/rows.py).

    always_on: compute every row at every pass and let the policy choose, so that no size depends on the data (CUDA
    graphs); else only the active rows are computed, and the host reads their number.
    """

    block: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    always_on: bool

    @classmethod
    def of(
        cls, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], always_on: bool
    ) -> tuple[BlockCall, dict[str, Any]]:
        """The call, and the arguments to pass on to the block. Raises NormprobeError for a call without a cache."""
        caches = [name for name, value in kwargs.items() if isinstance(value, Cache)]
        if len(caches) != 1:
            raise NormprobeError(
                "expected a decoder block that is given one key-value cache, by name, "
                f"got {len(caches)}; generate with use_cache=True"
            )
        passed_on = kwargs | {caches[0]: RecordingCache(kwargs[caches[0]])}
        return cls(block, args, passed_on, always_on), passed_on

    def __call__(self, active: RowMask, states: RowStates) -> RowStates | None:
        n = len(active)
        at = None
        if not self.always_on:
            at = active.nonzero()[:, 0]  # the one read of the host
            if len(at) == 0:
                return None
        first = self.args[0] if self.args else self.kwargs["hidden_states"]
        given = (states if at is None else states[at])[:, None].to(first.device)
        args: tuple[Any, ...] = ()
        kwargs = {name: _cut(name, value, at, n, first.shape[1]) for name, value in self.kwargs.items()}
        if self.args:
            args = (given, *(_cut("", value, at, n, first.shape[1]) for value in self.args[1:]))
        else:
            kwargs["hidden_states"] = given
        # Not through the block's __call__: its hooks are ours.
        output = self.block.forward(*args, **kwargs)
        out = (output[0] if isinstance(output, tuple) else output)[:, -1]
        out = out.to(states.device)
        return out if at is None else torch.zeros_like(states).index_copy(0, at, out.to(states.dtype))


def _cut(name: str, value: Any, at: Int[torch.Tensor, " n"] | None, n_rows: int, n_tokens: int) -> Any:
    """An argument of the first pass as the extra pass needs it: the last token of the rows `at`, or of all."""
    # Neither `match` nor `tuple | list`: torch.compile of PyTorch 2.9 cannot read them.
    if isinstance(value, RecordingCache):
        rows = {i: (_rows(k, at, n_rows), _rows(v, at, n_rows)) for i, (k, v) in value.given.items()}
        return ReadOnlyCache(value.cache, rows)
    if isinstance(value, torch.Tensor):
        return _rows(_last(name, value, n_tokens), at, n_rows)
    if isinstance(value, (tuple, list)):
        return type(value)(_cut(name, item, at, n_rows, n_tokens) for item in value)
    if isinstance(value, dict):
        return {key: _cut(name, item, at, n_rows, n_tokens) for key, item in value.items()}
    return value


def _rows(tensor: torch.Tensor, at: Int[torch.Tensor, " n"] | None, n_rows: int) -> torch.Tensor:
    """The chosen rows; what has one row for all, or is not by row, stays."""
    by_row = tensor.ndim >= 2 and tensor.shape[0] == n_rows and n_rows > 1
    return tensor if at is None or not by_row or len(at) == n_rows else tensor[at.to(tensor.device)]


def _last(name: str, tensor: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """The last token of what is by token: a mask [row, 1, token, key], [row, token, …], or [token]."""
    if n_tokens == 1 or (name == "attention_mask" and tensor.ndim == 2):  # [row, key]: all keys stay
        return tensor
    if tensor.ndim == 4:
        return tensor[:, :, -1:]
    if tensor.ndim in (2, 3) and tensor.shape[1] == n_tokens:
        return tensor[:, -1:]
    return tensor[-1:] if tensor.ndim == 1 and len(tensor) == n_tokens else tensor
