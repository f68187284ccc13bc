"""A policy at work on the decoder blocks of a model: hooks on, rows to the policy, its states back, hooks off."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from normprobe.engines.hf.events import Events, Noted, Recorder, Seen, UntriggeredWarning
from normprobe.engines.hf.rerun import BlockCall
from normprobe.errors import NormprobeError
from normprobe.policies.rows import Policy, Rows, RunningPolicy

UNFOLDED = 64
"""Passes of which the norms are kept, a number per row and layer, until the largest of all is taken at once."""


class Intervention:
    """Told whose tokens the next forward pass ends in (`begin`, `place`), it applies a policy to them.

    Only the last token of each row of a batch is a policy's business: the last of a prompt (which is therefore padded
    on the left), or the newest token of a response.

    recorder: keeps every event if given (it grows with each token); else only what the final warning needs is kept.
    """

    def __init__(
        self, policy: Policy, d: int, *, recorder: Recorder | None = None, always_on: bool = False
    ) -> None:
        self.policy = policy
        self.always_on = always_on
        self.recorder = recorder
        self.running: RunningPolicy | None = None
        self._d = d
        self._rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None
        self._calls: dict[int, BlockCall] = {}
        self._seen: list[Seen] = []
        self._kept: list[Noted] = []
        self._largest: Float[torch.Tensor, " layer"] | None = None
        self._acted: Bool[torch.Tensor, " layer"] | None = None

    def begin(self, requests: Sequence[str], device: torch.device) -> None:
        """A new batch: slot i is requests[i], of which nothing has been seen."""
        self.finish()
        self.running = self.policy.start(len(requests), self._d, device)
        self.running.reset(range(len(requests)), requests)

    def place(
        self,
        slot: Int[torch.Tensor, " row"],
        step: Int[torch.Tensor, " row"],
        entropy: Float[torch.Tensor, " row"] | None = None,
    ) -> None:
        """Name the last token of each row of the next forward pass (see `Rows`); a negative step leaves a row alone."""
        self.finish()
        self._rows = (slot, step, entropy)

    def finish(self) -> None:
        """The pass is over: what it showed enters the policy's history, and what was done is kept for the record.

        Raises NormprobeError if the policy was not asked at all of its layers.
        """
        self.keep(self.end())

    def end(self) -> Noted | None:
        """The first half of `finish`, tensor maths only: the history. Returns what is to be kept of the pass."""
        if self._rows is None or self.running is None:
            return None
        self.running.finish()
        (slot, step, _), seen = self._rows, self._seen
        self._rows, self._seen = None, []
        if len(seen) != len(self.policy.layers):
            raise NormprobeError(
                f"expected each pass to run layers {list(self.policy.layers)} under the policy, got {len(seen)} of "
                "them; run all layers, and leave it to intervene(always_on=True) to compile the model"
            )
        return Noted.of(slot, step, seen)

    def keep(self, noted: Noted | None) -> None:
        """The second half of `finish`."""
        if noted is None:
            return
        if self.always_on:
            noted = noted.copied()
        self._kept.append(noted)
        if len(self._kept) >= UNFOLDED:
            self._fold()
        if self.recorder is not None:
            self.recorder.keep(noted)

    def watch(self, block: nn.Module, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a block: remember how it is called, in case it has to run once more."""
        self._calls[layer], seen = BlockCall.watch(block, args, kwargs, self.always_on)
        return args, seen

    def change(self, output: object, layer: int) -> object:
        """After a block: its output, with the policy applied to the last token of each row."""
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
            raise NormprobeError(
                f"expected layer {layer} to return a tensor [batch, token, d], got {type(hidden).__name__}; "
                "use a model that `normprobe.models` opens"
            )
        if self._rows is None or self.running is None or len(self._rows[0]) != len(hidden):
            raise NormprobeError(
                f"expected to be told whose tokens a pass of {len(hidden)} rows holds, got "
                f"{'nothing' if self._rows is None else f'{len(self._rows[0])} rows'}; generate inside `intervene`, "
                "or call begin() and place() before each forward pass"
            )
        rows = Rows(hidden[:, -1], *self._rows)
        change = self.running.apply(rows, layer, self._calls.pop(layer))
        self._seen.append(Seen.of(rows, change, whole=self.recorder is not None))
        if change.hidden is rows.hidden:
            return output
        if hidden.shape[1] == 1:
            new = change.hidden[:, None]
        else:
            new = torch.cat([hidden[:, :-1], change.hidden[:, None]], dim=1)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def events(self) -> Events:
        """Everything that was recorded. Raises NormprobeError without a recorder."""
        if self.recorder is None:
            raise NormprobeError(
                "expected an intervention that records, got one that does not; give record=True"
            )
        return self.recorder.events()

    def _fold(self) -> None:
        """What the final warning needs of the passes since the last time; many at once, as each would cost as much."""
        step = torch.cat([noted.step for noted in self._kept])
        norm, triggered = (
            torch.cat([getattr(noted, name) for noted in self._kept], dim=1) for name in ("norm", "triggered")
        )
        largest, acted = torch.where(step >= 0, norm, 0.0).amax(dim=1), triggered.any(dim=1)
        if self._largest is not None and self._acted is not None:
            largest, acted = torch.maximum(self._largest, largest), self._acted | acted
        self._largest, self._acted = largest, acted
        self._kept.clear()

    def conclude(self, quiet: bool) -> None:
        """Raise if the model never ran; warn, unless `quiet`, if nothing ever triggered the policy."""
        self.finish()
        if self._kept:
            self._fold()
        if self._largest is None or self._acted is None:
            layers = list(self.policy.layers)
            raise NormprobeError(
                f"expected the model to run layers {layers}, got no call of layer {layers}; "
                "run the model inside the intervention"
            )
        if not quiet and not self._acted.any():
            largest = zip(self.policy.layers, self._largest.tolist(), strict=True)
            seen = ", ".join(f"{norm:.4g} at layer {layer}" for layer, norm in largest)
            warnings.warn(
                f"the policy changed nothing; the largest norms it saw: {seen}",
                UntriggeredWarning,
                stacklevel=4,
            )


@contextmanager
def attached(
    blocks: Sequence[nn.Module], intervention: Intervention, *, quiet: bool = False
) -> Iterator[Intervention]:
    """The intervention's hooks on the blocks of its layers; gone afterwards, also after an exception.

    Raises NormprobeError before anything runs if the policy names a layer that the model lacks, at the end if no hook
    was ever called. Warns (UntriggeredWarning) with the largest norms seen if the policy never acted, unless `quiet`.
    """
    layers = intervention.policy.layers
    if absent := [layer for layer in layers if not 0 <= layer < len(blocks)]:
        raise NormprobeError(
            f"expected layers 0…{len(blocks) - 1}, got {absent}; use a policy made for this model"
        )
    with ExitStack() as hooks:
        for layer in layers:
            before = blocks[layer].register_forward_pre_hook(
                lambda block, args, kwargs, layer=layer: intervention.watch(block, layer, args, kwargs),
                with_kwargs=True,
            )
            after = blocks[layer].register_forward_hook(
                lambda _block, _args, output, layer=layer: intervention.change(output, layer)
            )
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        yield intervention
    with torch.no_grad():
        intervention.conclude(quiet)
