"""The residual stream in vLLM's models: the outputs of decoder blocks, read and changed.

Blocks of Qwen2, Qwen3, Llama, Mistral, Gemma 1–3 and Phi-3 return two halves (hidden, residual) whose sum is the site;
the next norm adds them. Others return the sum itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError
from normprobe.policies.rows import Change, RowInts, RowStates

_Site = TypeVar("_Site", bound="Site")


@dataclass(frozen=True)
class Site:
    """The output of a block: the residual stream after it, whole or in two halves."""

    halves: tuple[Float[torch.Tensor, "token d"], ...]

    @classmethod
    def of(cls: type[_Site], output: object, layer: int) -> _Site:
        """Take a block's output. Raises NormprobeError for anything but one tensor [token, d] or two."""
        given = output if isinstance(output, tuple) else (output,)
        halves = tuple(half for half in given if isinstance(half, torch.Tensor) and half.ndim == 2)
        if len(halves) != len(given) or not 1 <= len(given) <= 2:
            raise NormprobeError(
                f"expected layer {layer} to return (hidden, residual) or their sum, got "
                f"{[type(half).__name__ for half in given]}; this architecture cannot be served with a policy"
            )
        return cls(halves)

    def at(self, index: RowInts) -> RowStates:
        """The residual stream of these tokens."""
        halves = [half if len(index) == len(half) else half[index] for half in self.halves]
        return halves[0] + halves[1] if len(halves) == 2 else halves[0]

    def changed(self, index: RowInts, change: Change) -> Site:
        """The site with the triggered rows replaced, in new tensors: (h', 0) sums to h' exactly.

        Other rows keep their bits, in both halves.
        """
        acts = change.triggered[:, None]
        whole = len(index) == len(self.halves[0])
        return Site(
            tuple(
                torch.where(acts, new, half)
                if whole
                else half.index_copy(0, index, torch.where(acts, new, half[index]))
                for half, new in zip(self.halves, _new_halves(change), strict=False)
            )
        )

    @property
    def output(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The site in the form in which the block returned it."""
        return self.halves if len(self.halves) == 2 else self.halves[0]


class SiteInPlace(Site):
    """A site whose memory others read, such as a graph: changes are written into it."""

    def at(self, index: RowInts) -> RowStates:
        """The residual stream of these tokens, in memory of its own, since histories keep it."""
        state = super().at(index)
        return state.clone() if state is self.halves[0] else state

    def changed(self, index: RowInts, change: Change) -> Site:
        """This same site, its triggered rows overwritten."""
        for half, new in zip(self.halves, _new_halves(change), strict=False):
            half.index_copy_(0, index, torch.where(change.triggered[:, None], new, half[index]))
        return self


def _new_halves(change: Change) -> tuple[torch.Tensor, torch.Tensor]:
    """The two halves of the changed rows."""
    return change.hidden, torch.zeros((), dtype=change.hidden.dtype, device=change.hidden.device)
