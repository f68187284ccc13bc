"""Which requests hold which slots of which policy: stable while a request is at work, whatever the batch does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from normprobe.policies.rows import Acting, Policy

_SUFFIX = re.compile(r"-[0-9a-f]{8}$")


@dataclass(frozen=True)
class Held:
    """A request at work: its slot, and its policy by the text that describes it."""

    slot: int
    policy: str


class Slots:
    """One acting policy per distinct settings, all over the same slots.

    make: a policy from the text that describes it. n_slots: requests at work at a time, d: width of the states.
    keep: the default policy, there from the start, which stays when no request holds it; any other comes with its first
        request and goes with its last.
    """

    def __init__(
        self,
        make: Callable[[str], Policy],
        n_slots: int,
        d: int,
        device: torch.device,
        keep: str | None = None,
    ) -> None:
        self.held: dict[str, Held] = {}
        self.acting: dict[str, Acting] = {}
        self.layers: dict[str, frozenset[int]] = {}
        self._make, self._n_slots, self._d, self._device, self._keep = make, n_slots, d, device, keep
        self._free = list(range(n_slots))[::-1]
        if keep is not None:
            self._start(keep)

    def free(self, requests: Iterable[str]) -> None:
        """These requests are finished, aborted or preempted; those that hold no slot are ignored."""
        # A set has an order of its own in every process; slots are to be the same in all.
        for request in sorted(requests):
            if (held := self.held.pop(request, None)) is not None:
                self._free.append(held.slot)

    def take(self, requests: Mapping[str, str]) -> None:
        """These requests start, or start again from their first token: request id → text of its policy."""
        self.free(requests)
        self._forget({held.policy for held in self.held.values()} | set(requests.values()) | {self._keep})
        for text in dict.fromkeys(requests.values()):
            members = [request for request, given in requests.items() if given == text]
            if text not in self.acting:
                self._start(text)
            for request in members:
                self.held[request] = Held(self._free.pop(), text)
            slots = [self.held[request].slot for request in members]
            self.acting[text].reset(slots, [external(request) for request in members])

    def tidy(self) -> None:
        """Policies that no request holds any more go."""
        if len(self.acting) > (self._keep is not None):
            self._forget({held.policy for held in self.held.values()} | {self._keep})

    def _start(self, text: str) -> None:
        policy = self._make(text)
        self.layers[text] = frozenset(policy.layers)
        self.acting[text] = policy.start(self._n_slots, self._d, self._device)

    def _forget(self, needed: set[str | None]) -> None:
        """Policies that no request holds go: settings are the clients' to invent, memory is not."""
        for text in self.acting.keys() - needed:
            del self.acting[text], self.layers[text]


def external(request: str) -> str:
    """The request's name as its sender gave it: vLLM appends "-" and 8 random hexadecimal digits. Samples of one prompt
    keep the number that vLLM puts in front ("2_name"), so that their draws differ."""
    return _SUFFIX.sub("", request)
