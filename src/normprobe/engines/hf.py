"""The Hugging Face engine: a policy on the decoder blocks of an open model, through forward hooks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from normprobe.errors import NormprobeError
from normprobe.models.open import OpenModel
from normprobe.policies.rows import Policy, Rows, norms
from normprobe.tracing.decode import decode


class UntriggeredWarning(UserWarning):
    """A policy was asked about every state and changed none."""


@dataclass(frozen=True)
class Events:
    """Where a policy changed a state, one entry per change, ordered by slot, step and layer whatever the batches were.

    delta: ‖Δh‖ in activation units, float32.
    """

    slot: Int[torch.Tensor, " event"]
    step: Int[torch.Tensor, " event"]
    layer: Int[torch.Tensor, " event"]
    delta: Float[torch.Tensor, " event"]


@dataclass
class Intervention:
    """A policy at work: tell it whose tokens the next forward pass holds (`place`), ask it afterwards what happened."""

    policy: Policy
    _slots: Int[torch.Tensor, "batch token"] | None = None
    _steps: Int[torch.Tensor, "batch token"] | None = None
    _largest: dict[int, Float[torch.Tensor, ""]] = field(default_factory=dict)
    # Per call: slot, step, layer and ‖Δh‖ of its rows, −1 where nothing changed. Sorting out waits for `events`, since
    # the host would have to wait for the device at each call.
    _calls: list[tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]] = field(default_factory=list)

    def place(self, slots: Int[torch.Tensor, " batch"], steps: Int[torch.Tensor, "batch token"]) -> None:
        """Name what the next forward pass holds: the request of each row, the step (see `Rows`) of each token.

        Padding has a negative step, as has all of the prompt but its last token.
        """
        self._slots, self._steps = slots[:, None].expand_as(steps), steps

    def change(self, output: object, layer: int) -> object:
        """What the block of `layer` gives on, with the policy applied to the residual stream in `output`."""
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
            raise NormprobeError(
                f"expected layer {layer} to return a tensor [batch, token, d], got {type(hidden).__name__}; "
                "use a model that `normprobe.models` opens"
            )
        if self._slots is None or self._steps is None or self._steps.shape != hidden.shape[:2]:
            raise NormprobeError(
                f"expected slots and steps for a pass of shape {tuple(hidden.shape[:2])}, got "
                f"{None if self._steps is None else tuple(self._steps.shape)}; call place() before each forward pass"
            )
        rows = Rows(hidden.flatten(0, 1), self._slots.flatten(), self._steps.flatten())
        changed, chosen = self.policy.apply(rows, layer)
        self._note(rows, changed, chosen, layer)
        new = changed.view_as(hidden)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def events(self) -> Events:
        """All changes so far."""
        slot = torch.cat([call[0] for call in self._calls]).cpu()
        step = torch.cat([call[1] for call in self._calls]).cpu()
        layer = torch.cat([torch.full_like(call[0], call[2]) for call in self._calls]).cpu()
        delta = torch.cat([call[3] for call in self._calls]).cpu()
        key = (slot * (int(step.max()) + 1) + step) * (int(layer.max()) + 1) + layer
        order = torch.where(delta >= 0, key, -1).argsort()[int((delta < 0).sum()) :]
        return Events(slot[order], step[order], layer[order], delta[order])

    def _note(
        self,
        rows: Rows,
        changed: Float[torch.Tensor, "row d"],
        chosen: Bool[torch.Tensor, " row"],
        layer: int,
    ) -> None:
        eligible = rows.eligible
        largest = torch.where(eligible, norms(rows.hidden), 0.0).amax()
        self._largest[layer] = torch.maximum(self._largest.get(layer, largest), largest)
        delta = torch.where(chosen, norms(changed.float() - rows.hidden.float()), -1.0)
        self._calls.append((rows.slot, rows.step, layer, delta))

    def _verdict(self) -> None:
        """Raise if a layer never ran, warn if nothing was ever changed."""
        if silent := [layer for layer in self.policy.layers if layer not in self._largest]:
            raise NormprobeError(
                f"expected the model to run layers {list(self.policy.layers)}, got no call of layer {silent}; "
                "run the model inside the intervention, with all its layers"
            )
        if not any(bool((call[3] >= 0).any()) for call in self._calls):
            seen = ", ".join(
                f"{float(norm):.4g} at layer {layer}" for layer, norm in sorted(self._largest.items())
            )
            warnings.warn(
                f"the policy changed nothing; the largest norms it saw: {seen}",
                UntriggeredWarning,
                stacklevel=4,
            )


@contextmanager
def intervene(opened: OpenModel, policy: Policy) -> Iterator[Intervention]:
    """Apply `policy` to the model inside the block. The hooks are gone afterwards, also after an exception.

    Raises NormprobeError before anything runs if the policy names a layer that the model lacks, at the end if a hook
    was never called. Warns (UntriggeredWarning) with the largest norms seen if the policy never changed a state.
    """
    if absent := [layer for layer in policy.layers if not 0 <= layer < len(opened.blocks)]:
        raise NormprobeError(
            f"expected layers 0…{len(opened.blocks) - 1}, got {absent}; use a policy made for this model"
        )
    intervention = Intervention(policy)
    handles = [
        opened.blocks[layer].register_forward_hook(
            lambda _module, _inputs, output, layer=layer: intervention.change(output, layer)
        )
        for layer in policy.layers
    ]
    try:
        yield intervention
    finally:
        for handle in handles:
            handle.remove()
    intervention._verdict()


def generate(
    opened: OpenModel,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    batch_size: int = 128,
    progress: str | None = None,
) -> tuple[list[list[int]], Events]:
    """Greedy tokens after each prompt (see `decode`) under a policy, and what the policy did; slots count the prompts.

    Batches hold prompts of like length, in an order that depends on nothing else. progress: the label of a progress
    bar. Raises and warns as `intervene` does.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=opened.device)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    tokens: list[list[int]] = [[] for _ in prompts]
    with (
        intervene(opened, policy) as intervention,
        tqdm(total=len(prompts), desc=progress, unit="problem", disable=progress is None) as bar,
    ):
        for start in range(0, len(prompts), batch_size):
            batch = torch.tensor(order[start : start + batch_size], device=opened.device)

            def place(present: torch.Tensor, position: torch.Tensor, batch: torch.Tensor = batch) -> None:
                slots = batch[present]
                intervention.place(
                    slots, torch.where(position >= 0, position - lengths[slots][:, None] + 1, -1)
                )

            members = batch.tolist()
            for slot, written in zip(
                members,
                decode(opened, [prompts[i] for i in members], max_new_tokens, on_pass=place),
                strict=True,
            ):
                tokens[slot] = written
            bar.update(len(members))
        return tokens, intervention.events()
