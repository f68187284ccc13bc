"""The slot and the policy of each active request: stable while it runs, whatever the batch does."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from normprobe.engines.base import probe_results
from normprobe.policies.policy import Policy, RunningPolicy

_SUFFIX = re.compile(r"-[0-9a-f]{8}$")


@dataclass(frozen=True)
class ActiveRequest:
    """The slot of a request that runs under a policy, and the text that describes the policy."""

    slot: int
    policy: str


class Slots:
    """One policy at work (`RunningPolicy`) per distinct settings, all over the same slots.

    make: a policy from the text that describes it. n_slots: requests at a time, d: width of the states.
    reading: the texts of the policies that read entropies.
    keep: the policies that are there from the start and always; any other comes with its first request and goes with
        its last.
    """

    def __init__(
        self,
        make: Callable[[str], Policy],
        n_slots: int,
        d: int,
        device: torch.device,
        keep: Collection[str] = (),
    ) -> None:
        self.active: dict[str, ActiveRequest] = {}
        self.running: dict[str, RunningPolicy] = {}
        self.layers: dict[str, frozenset[int]] = {}
        self.reading: set[str] = set()
        self._make, self._n_slots, self._d, self._device, self._keep = make, n_slots, d, device, keep
        self._free = list(range(n_slots))[::-1]
        for text in keep:
            self._start(text)

    def free(self, requests: Iterable[str]) -> None:
        """Free the slots of requests that are finished, aborted or preempted; those without a slot are ignored."""
        # A set has an order of its own in every process; slots are to be the same in all.
        for request in sorted(requests):
            if (active := self.active.pop(request, None)) is not None:
                self._free.append(active.slot)

    def take(self, requests: Mapping[str, str]) -> None:
        """Give slots to requests that start, or start again from their first token: request id → text of its policy.

        Policies that no request has any more are dropped.
        """
        self.free(requests)
        # Clients may invent any number of settings, memory is limited.
        if len(self.running) > len(self._keep):
            needed = {one.policy for one in self.active.values()} | {*requests.values(), *self._keep}
            for text in self.running.keys() - needed:
                del self.running[text], self.layers[text]
                self.reading.discard(text)
        for text in dict.fromkeys(requests.values()):
            members = [request for request, given in requests.items() if given == text]
            if text not in self.running:
                self._start(text)
            for request in members:
                self.active[request] = ActiveRequest(self._free.pop(), text)
            slots = [self.active[request].slot for request in members]
            self.running[text].reset(slots, [external(request) for request in members])

    def results(self, requests: Iterable[str], layers: Iterable[int]) -> dict[str, dict[str, Any]]:
        """What the probes measured by request, as `probe_results` gives it; requests without a probe are left out.

        layers: those of this worker; results hold no others.
        """
        here = frozenset(layers)
        by_policy: dict[str, list[str]] = {}
        for request in requests:
            if request in self.active:
                by_policy.setdefault(self.active[request].policy, []).append(request)
        found: dict[str, dict[str, Any]] = {}
        for policy, members in by_policy.items():
            summary = self.running[policy].summary([self.active[request].slot for request in members])
            if summary is not None:
                found |= dict(zip(members, probe_results(summary, here), strict=True))
        return found

    def _start(self, text: str) -> None:
        policy = self._make(text)
        self.layers[text] = frozenset(policy.layers)
        if policy.reads_entropy:
            self.reading.add(text)
        self.running[text] = policy.start(self._n_slots, self._d, self._device)


def external(request: str) -> str:
    """The request's name as its sender gave it: vLLM appends "-" and 8 random hexadecimal digits.

    Samples of one prompt keep the number that vLLM puts in front ("2_name"), so that their draws differ.
    """
    return _SUFFIX.sub("", request)
