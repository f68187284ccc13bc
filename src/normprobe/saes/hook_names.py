"""One site has many names: what TransformerLens, Transformers, nnsight and the trainers of dictionaries call it."""

from __future__ import annotations

import re

_AFTER = ("", "output", "output.0", "out", "hook_out", "hook_resid_post")
_BEFORE = ("input", "input.0", "in", "hook_in", "hook_resid_pre")
_NAME = re.compile(
    r"(?:[A-Za-z_]+\.)*(?:layers|blocks|block|h)[._](?P<layer>\d+)(?:\.(?P<point>[\w.]+))?"
    r"|(?:resid_post_)?layer_(?P<after>\d+)"
    r"|resid_post_(?P<alone>\d+)"
)


def hook_name(layer: int) -> str:
    """TransformerLens's name of the site resid_post[layer]."""
    return f"blocks.{layer}.hook_resid_post"


def layer_of(name: str) -> int | None:
    """The layer whose site resid_post a name means; None for any other point of a network.

    Read are `blocks.9.hook_resid_post`, `model.layers.9`, `transformer.h.9.output`, `layers.9` (sparsify),
    `resid_post_layer_9` (dictionary_learning), `layer_09` (this package). What enters a block left the one before:
    `blocks.10.hook_resid_pre` is layer 9.
    """
    found = _NAME.fullmatch(name.strip())
    if found is None:
        return None
    layer, point = int(found["layer"] or found["after"] or found["alone"]), found["point"] or ""
    if point in _AFTER:
        return layer
    return layer - 1 if point in _BEFORE and layer > 0 else None
