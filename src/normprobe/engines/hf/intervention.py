"""Forward hooks that pass the hidden states of a model's decoder blocks through a policy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from normprobe.engines.base import Events, UntriggeredWarning
from normprobe.engines.hf.rerun import BlockCall
from normprobe.errors import NormprobeError
from normprobe.policies.policy import Policy, RunningPolicy
from normprobe.policies.rows import Change, RowFloats, RowInts, Rows, norms

UNFOLDED = 64
"""Passes whose norms are kept before they are reduced to the largest."""


@dataclass(frozen=True)
class PassRecord:
    """The calls of a policy in one forward pass, one per layer in ascending order.

    delta (−1 where it did not act), passes: as `Events`; None if no events are kept.
    """

    slot: RowInts
    step: RowInts
    norm: Float[torch.Tensor, "layer row"]
    triggered: Bool[torch.Tensor, "layer row"]
    delta: Float[torch.Tensor, "layer row"] | None = None
    passes: Int[torch.Tensor, "layer row"] | None = None

    def copied(self) -> PassRecord:
        """A copy in memory of its own, since the next pass of a CUDA graph overwrites what this one returned."""
        made = {name: getattr(self, name) for name in ("step", "norm", "triggered", "delta", "passes")}
        return replace(self, **{name: None if t is None else t.clone() for name, t in made.items()})


def record_call(rows: Rows, change: Change, events: bool) -> tuple[torch.Tensor, ...]:
    """One layer of a `PassRecord`: norm and triggered; with `events` also delta and passes."""
    norm, triggered = norms(rows.hidden), change.triggered
    if not events:
        return norm, triggered
    delta = torch.where(triggered, norms(change.hidden.float() - rows.hidden.float()), -1.0)
    passes = torch.zeros_like(rows.slot) if change.passes is None else change.passes.to(rows.slot)
    return norm, triggered, delta, passes


def events_of(passes: Sequence[PassRecord], layers: Sequence[int]) -> Events:
    """The events of these passes at these layers, on the CPU.

    Rows without one are dropped here only: the host would have to wait at each call of a policy.
    """
    by_pass = [(p.slot, p.step, p.slot.new_tensor(layers)[:, None], p.delta, p.passes) for p in passes]
    slot, step, layer, delta, extra = (
        torch.cat([part.expand_as(p.norm).flatten() for p, part in zip(passes, parts, strict=True)]).cpu()
        for parts in zip(*by_pass, strict=True)
    )
    key = (slot * (int(step.max()) + 1) + step) * (int(layer.max()) + 1) + layer
    order = torch.where(delta >= 0, key, -1).argsort()[int((delta < 0).sum()) :]
    return Events(slot[order], step[order], layer[order], delta[order], extra[order])


class Intervention:
    """Applies a policy to the last token of each row of a batch: the end of a prompt, or the newest token.

    The caller names the requests of a batch (`begin`) and, before each forward pass, the request and step of each row
    (`place`). Prompts must be padded on the left.

    recorded: with `record` all passes, from which events are made, and which grow with each token; else only what the
    final warning needs is kept.
    """

    def __init__(self, policy: Policy, d: int, *, record: bool, always_on: bool = False) -> None:
        self.policy = policy
        self.always_on = always_on
        self.recorded: list[PassRecord] | None = [] if record else None
        self._with_events = record  # a compiled pass may not ask the list: it is another one at each step
        self.running: RunningPolicy | None = None
        self._d = d
        self._first = 0
        self._rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None
        self._calls: dict[int, BlockCall] = {}
        self._made: list[tuple[torch.Tensor, ...]] = []
        self._kept: list[PassRecord] = []
        self._folded: list[tuple[Float[torch.Tensor, " layer"], Bool[torch.Tensor, " layer"]]] = []

    def begin(self, requests: Sequence[str], device: torch.device, first: int = 0) -> None:
        """Begin a batch: slot i belongs to requests[i], whose history is empty; its events are those of `first` + i."""
        self.finish()
        self._first = first
        self.running = self.policy.start(len(requests), self._d, device)
        self.running.reset(range(len(requests)), requests)

    def place(self, slot: RowInts, step: RowInts, entropy: RowFloats | None = None) -> None:
        """Give slot and step (see `Rows`) of each row of the next forward pass; a negative step leaves a row alone."""
        self.finish()
        self._rows = (slot, step, entropy)

    def finish(self) -> None:
        """End a pass: update the policy's history and keep the record of what it did.

        Raises NormprobeError if the policy was not asked at all of its layers.
        """
        self.keep(self.end())

    def end(self) -> PassRecord | None:
        """The first half of `finish`, tensor maths only: update the history; returns the record of the pass."""
        if self._rows is None or self.running is None:
            return None
        self.running.finish()
        (slot, step, _), calls = self._rows, self._made
        self._rows, self._made = None, []
        if len(calls) != len(self.policy.layers):
            raise NormprobeError(
                f"expected each pass to run layers {list(self.policy.layers)} under the policy, got {len(calls)} of "
                "them; run all layers, and leave it to intervene(always_on=True) to compile the model"
            )
        return PassRecord(slot, step, *map(torch.stack, zip(*calls, strict=True)))

    def keep(self, record: PassRecord | None) -> None:
        """The second half of `finish`: keep the record."""
        if record is None:
            return
        if self.always_on:
            record = record.copied()
        if self._first:
            record = replace(record, slot=record.slot + self._first)
        self._kept.append(record)
        if len(self._kept) >= UNFOLDED:
            self._fold()
        if self.recorded is not None:
            self.recorded.append(record)

    def abandon(self) -> None:
        """Forget a pass that did not come to its end."""
        self._rows, self._made = None, []

    def before(self, block: nn.Module, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a block: keep the arguments of its call, in case it has to run once more."""
        self._calls[layer], kwargs = BlockCall.of(block, args, kwargs, self.always_on)
        return args, kwargs

    def after(self, output: object, layer: int) -> object:
        """After a block: return its output with the policy applied to the last token of each row."""
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
            raise NormprobeError(
                f"expected layer {layer} to return a tensor [batch, token, d], got {type(hidden).__name__}; "
                "use a model that `normprobe.models` opens"
            )
        if self._rows is None or self.running is None or len(self._rows[0]) != len(hidden):
            raise NormprobeError(
                f"expected slot and step of each of the {len(hidden)} rows of a pass, got "
                f"{'nothing' if self._rows is None else f'{len(self._rows[0])} rows'}; generate inside `intervene`, "
                "or call begin() and place() before each forward pass"
            )
        # A model may be spread over several devices; a policy is where the model's inputs are.
        rows = Rows(hidden[:, -1].to(self._rows[0].device), *self._rows)
        change = self.running.apply(rows, layer, self._calls.pop(layer))
        self._made.append(record_call(rows, change, self._with_events))
        if change.hidden is rows.hidden:
            return output
        last = change.hidden[:, None].to(hidden.device)
        new = last if hidden.shape[1] == 1 else torch.cat([hidden[:, :-1], last], dim=1)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def events(self) -> Events:
        """Everything that was recorded. Raises NormprobeError where nothing was to be."""
        if self.recorded is None:
            raise NormprobeError(
                "expected an intervention that records, got one that does not; give record=True"
            )
        return events_of(self.recorded, self.policy.layers)

    def _fold(self) -> None:
        """Reduce the kept passes to what the final warning needs; many at once, since one would cost as much."""
        step = torch.cat([record.step for record in self._kept])
        norm, triggered = (
            torch.cat([getattr(record, name) for record in self._kept], dim=1)
            for name in ("norm", "triggered")
        )
        self._folded.append((torch.where(step >= 0, norm, 0.0).amax(dim=1), triggered.any(dim=1)))
        self._kept.clear()

    def conclude(self, quiet: bool) -> None:
        """Raise if the model never ran; warn, unless `quiet`, if nothing ever triggered the policy."""
        self.finish()
        if self._kept:
            self._fold()
        if not self._folded:
            layers = list(self.policy.layers)
            raise NormprobeError(
                f"expected the model to run layers {layers}, got no call of layer {layers}; "
                "run the model inside the intervention"
            )
        largest, acted = map(torch.stack, zip(*self._folded, strict=True))
        if not quiet and not acted.any():
            by_layer = zip(self.policy.layers, largest.amax(dim=0).tolist(), strict=True)
            largest_norms = ", ".join(f"{norm:.4g} at layer {layer}" for layer, norm in by_layer)
            warnings.warn(
                f"the policy changed nothing; the largest norms it saw: {largest_norms}",
                UntriggeredWarning,
                stacklevel=4,
            )


@contextmanager
def attached(
    blocks: Sequence[nn.Module], intervention: Intervention, *, quiet: bool = False
) -> Iterator[Intervention]:
    """The intervention's hooks on the blocks of its layers; gone afterwards, also after an exception.

    Raises NormprobeError before anything runs if the policy names a layer that the model lacks or another policy is on
    the model, at the end if no hook was ever called. Warns (UntriggeredWarning) with the largest norms seen
    if the policy never acted, unless `quiet`.
    """
    layers = intervention.policy.layers
    if absent := [layer for layer in layers if not 0 <= layer < len(blocks)]:
        raise NormprobeError(
            f"expected layers 0…{len(blocks) - 1}, got {absent}; use a policy made for this model"
        )
    present = [hook for block in blocks for hook in block._forward_hooks.values()]
    if any(getattr(hook, "__module__", None) == __name__ for hook in present):
        raise NormprobeError(
            "expected a model under one policy at a time, got one inside `intervene`; end that block first, or give "
            "one block a list of policies"
        )
    with ExitStack() as hooks:
        for layer in layers:
            before = blocks[layer].register_forward_pre_hook(
                lambda block, args, kwargs, layer=layer: intervention.before(block, layer, args, kwargs),
                with_kwargs=True,
            )
            after = blocks[layer].register_forward_hook(
                lambda _block, _args, output, layer=layer: intervention.after(output, layer)
            )
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        yield intervention
    with torch.no_grad():
        intervention.conclude(quiet)
