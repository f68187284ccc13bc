"""Events as vLLM's workers report them, by request and layer, as `normprobe.engines.base.Events`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from normprobe.engines.base import Events


def events_of(reports: Sequence[tuple[Mapping[str, Mapping[str, Sequence[Any]]], int]]) -> Events:
    """The events of all requests in order.

    reports: of each request, {layer: {"step", "delta", "passes"}} and the number of its tokens; a pass beyond its last
    token, which asynchronous scheduling may run, is left out.
    """
    rows = sorted(
        (request, step, int(layer), delta, passes)
        for request, (by_layer, n_tokens) in enumerate(reports)
        for layer, of in by_layer.items()
        for step, delta, passes in zip(of["step"], of["delta"], of["passes"], strict=True)
        if step < n_tokens
    )
    if not rows:
        return Events.joined([])
    request, step, layer, delta, passes = zip(*rows, strict=True)
    whole = {"request": request, "step": step, "layer": layer, "delta": delta, "passes": passes}
    return Events(**{name: torch.tensor(values) for name, values in whole.items()})
