"""What the probes of one worker measured, by request and layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from normprobe.engines.probe_results import probe_results, running_probe
from normprobe.engines.vllm.worker.slots import Slots


def collect(slots: Slots, requests: Iterable[str], layers: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Results by request, for those under a probe, as `probe_results` gives them.

    layers: those of this worker; results hold no others.
    """
    here = frozenset(layers)
    by_policy: dict[str, list[str]] = {}
    for request in requests:
        if request in slots.active:
            by_policy.setdefault(slots.active[request].policy, []).append(request)
    found: dict[str, dict[str, Any]] = {}
    for policy, members in by_policy.items():
        probing = running_probe(slots.running[policy])
        if probing is not None:
            summary = probing.summary([slots.active[request].slot for request in members])
            columns = {str(layer): i for i, layer in enumerate(probing.settings.layers) if layer in here}
            found |= dict(zip(members, probe_results(summary, columns), strict=True))
    return found
