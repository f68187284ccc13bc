"""A CUDA graph for a CPU: tensor work is recorded once and done again on the same memory, without any Python."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_REFUSED = {
    **dict.fromkeys(
        (
            "aten::nonzero",
            "aten::_local_scalar_dense",
            "aten::item",
            "aten::is_nonzero",
            "aten::masked_select",
        ),
        "waits for the device",
    ),
    **dict.fromkeys(("aten::lift_fresh", "aten::lift_fresh_copy"), "takes numbers of the host"),
}
"""Operators that a capture does not allow, and why."""


class RecordedGraph(TorchDispatchMode):
    """Records within `with`, where nothing may wait for the device or come from the host; `replay` does it all again on
    what its memory holds by then."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        assert name not in _REFUSED, f"{name} {_REFUSED[name]}"
        given = kwargs or {}
        result = func(*args, **given)
        self._calls.append((func, args, given, result))
        return result

    def replay(self) -> None:
        for func, args, given, kept in self._calls:
            made = func(*args, **given)
            for old, new in zip(tree_leaves(kept), tree_leaves(made), strict=True):
                # A view, or a change in place, has its memory already.
                if isinstance(old, torch.Tensor) and not _same_memory(old, new):
                    old.copy_(new)


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
