"""Record the residual stream after every decoder block, through forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel


class Sites:
    """The sites of the latest forward pass."""

    def __init__(self, n_layers: int, device: torch.device) -> None:
        self._n_layers, self._device = n_layers, device
        self._states: dict[int, torch.Tensor] = {}

    @property
    def states(self) -> list[Float[torch.Tensor, "batch token d"]]:
        """One tensor per layer, in the model's dtype: references to what the model computed, not copies (but of a model
        spread over several devices, whose sites are brought to that of its inputs).

        Raises NormprobeError if the latest forward pass did not call every block.
        """
        if silent := [layer for layer in range(self._n_layers) if layer not in self._states]:
            raise NormprobeError(
                f"expected every decoder block to run, got no call of layers {silent}; "
                "run the whole model inside record_sites and read the sites there"
            )
        return [self._states[layer].to(self._device) for layer in range(self._n_layers)]

    def _record(self, layer: int, hidden: torch.Tensor) -> None:
        if layer == 0:  # a new pass: what the last one left must not pass for this one's
            self._states.clear()
        self._states[layer] = hidden


@contextmanager
def visit_sites(
    opened: OpenModel, visit: Callable[[int, Float[torch.Tensor, "batch token d"]], torch.Tensor | None]
) -> Iterator[None]:
    """Within the block, `visit(layer, resid_post)` is called when a forward pass leaves that layer, in its dtype.

    If it returns a tensor, the next layer reads that instead.
    On leaving, also by an exception, the hooks are removed. Raises NormprobeError if a block returns anything but a
    tensor or a tuple that starts with one, which `visit` then never sees.
    """

    def hook(layer: int, output: object) -> object:
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
            got = (
                f"shape {tuple(hidden.shape)}" if isinstance(hidden, torch.Tensor) else type(hidden).__name__
            )
            raise NormprobeError(
                f"expected layer {layer} to return a tensor [batch, token, d] or a tuple that starts with one, "
                f"got {got}; this architecture cannot be measured"
            )
        replaced = visit(layer, hidden)
        if replaced is None:
            return None
        return (replaced, *output[1:]) if isinstance(output, tuple) else replaced

    handles = [
        block.register_forward_hook(lambda _module, _inputs, output, layer=layer: hook(layer, output))
        for layer, block in enumerate(opened.blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_sites(opened: OpenModel) -> Iterator[Sites]:
    """Within the block, `sites.states` is resid_post of the latest forward pass of `opened.model` or of its base model.

    On leaving, also by an exception, the hooks are removed and the tensors released.
    Raises NormprobeError if a block returns anything but a tensor or a tuple that starts with one, or if by the end of
    the block some hook was never called.
    """
    sites = Sites(len(opened.blocks), opened.device)
    try:
        with visit_sites(opened, sites._record):
            yield sites
            _ = sites.states
    finally:
        sites._states.clear()
