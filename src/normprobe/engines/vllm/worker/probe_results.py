"""What the probes of one worker measured, by request and layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from normprobe.engines.vllm.worker.slots import Slots
from normprobe.policies.lrs import sums_by_layer
from normprobe.policies.probe import RunningProbe, Summary
from normprobe.policies.rows import RunningPolicy


def collect(slots: Slots, requests: Iterable[str], layers: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Results by request, for those under a probe: {"n_tokens": int, "layers": {layer: {"total", "excess", "above",
    "largest", "last_excess", "last_third" and, with max_tokens > 0, "norm": [token]}}}.

    The first four are those of `normprobe.policies.probe.Summary`; the next two are Σ max(0, norm − τ) and Σ norm over
    the last parts that `normprobe.policies.lrs` defines.
    layers: those of this worker; results hold no others.
    """
    here = frozenset(layers)
    by_policy: dict[str, list[str]] = {}
    for request in requests:
        if request in slots.active:
            by_policy.setdefault(slots.active[request].policy, []).append(request)
    found: dict[str, dict[str, Any]] = {}
    for policy, members in by_policy.items():
        probing = _probing(slots.running[policy])
        if probing is not None:
            summary = probing.summary([slots.active[request].slot for request in members])
            columns = {str(layer): i for i, layer in enumerate(probing.settings.layers) if layer in here}
            found |= dict(zip(members, _results(summary, columns), strict=True))
    return found


def _results(summary: Summary, columns: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """The result of each request in a summary. columns: by layer, its place in the summary."""
    *_, last_excess, last_third = sums_by_layer(summary)
    values = {
        "total": summary.total,
        "excess": summary.excess,
        "above": summary.above,
        "largest": summary.largest,
        "last_excess": last_excess,
        "last_third": last_third,
    }
    n_kept = summary.norm.shape[2]
    for row, n in enumerate(summary.n_tokens.tolist()):
        layers: dict[str, dict[str, Any]] = {
            layer: {name: value[row, i].item() for name, value in values.items()}
            for layer, i in columns.items()
        }
        if n_kept:
            for layer, i in columns.items():
                layers[layer]["norm"] = summary.norm[row, i, : min(n, n_kept)].tolist()
        yield {"n_tokens": n, "layers": layers}


def _probing(running: RunningPolicy) -> RunningProbe | None:
    """The probe among the parts of a policy at work."""
    if isinstance(running, RunningProbe):
        return running
    parts = getattr(running, "parts", [])  # of a combination
    return next((found for _, part in parts if (found := _probing(part)) is not None), None)
