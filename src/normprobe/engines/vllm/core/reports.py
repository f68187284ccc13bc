"""What probes saw, back to who asked: on the final output of a request, in its `kv_transfer_params["normprobe"]`.

That field of vLLM's outputs is the one free dictionary that reaches the engine's caller, offline and over HTTP. It is
filled once per request, when it finishes: one call to the workers for all requests that finish in a step, none for
requests without a probe. Under asynchronous scheduling a pass may be under way when a stop string is found; its token
may then be in the sums of that request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normprobe.engines.vllm.configuration import FIELD, SAMPLES
from normprobe.engines.vllm.worker.slots import Slots
from normprobe.policies.probe import Probing, Summary
from normprobe.policies.rows import Acting
from normprobe.policies.selection import FORMS, sums_by_layer, with_rates

SUMS = ("total", "excess", "above", "last_excess", "last_third")
"""The names here of what `FORMS` stands for, by layer."""


def wants(extra_args: Mapping[str, Any] | None) -> bool:
    """Whether an admitted request's policy holds a probe."""
    text = (extra_args or {}).get(FIELD)
    if not isinstance(text, str):
        return False
    spec = json.loads(text)
    return any(part.get("policy") == "probe" for part in (spec if isinstance(spec, list) else [spec]))


def collect(slots: Slots, requests: Iterable[str], held: Iterable[int]) -> dict[str, dict[str, Any]]:
    """By request, of those that a probe has seen: {"n_tokens": int, "layers": {layer: {"total", "excess", "above",
    "largest", "last_excess", "last_third" and, with max_tokens > 0, "norm": [token]}}}.

    The first four as in `normprobe.policies.probe.Summary`; the next two are Σ max(0, norm − τ) and Σ norm over the
    last parts that `normprobe.policies.selection` defines.
    held: the layers of this worker; the probe knows nothing of others.
    """
    here = frozenset(held)
    by_policy: dict[str, list[str]] = {}
    for request in requests:
        if request in slots.held:
            by_policy.setdefault(slots.held[request].policy, []).append(request)
    found: dict[str, dict[str, Any]] = {}
    for policy, members in by_policy.items():
        probing = _probing(slots.acting[policy])
        if probing is not None:
            seen = probing.summary([slots.held[request].slot for request in members])
            columns = {str(layer): i for i, layer in enumerate(probing.settings.layers) if layer in here}
            found |= dict(zip(members, _told(seen, columns), strict=True))
    return found


def _told(seen: Summary, columns: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Each request's part of `collect`. columns: by layer, its place in the summary."""
    *_, last_excess, last_third = sums_by_layer(seen)
    values = {
        "total": seen.total,
        "excess": seen.excess,
        "above": seen.above,
        "largest": seen.largest,
        "last_excess": last_excess,
        "last_third": last_third,
    }
    n_kept = seen.norm.shape[2]
    for row, n in enumerate(seen.n_tokens.tolist()):
        layers: dict[str, dict[str, Any]] = {
            layer: {name: value[row, i].item() for name, value in values.items()}
            for layer, i in columns.items()
        }
        if n_kept:
            for layer, i in columns.items():
                layers[layer]["norm"] = seen.norm[row, i, : min(n, n_kept)].tolist()
        yield {"n_tokens": n, "layers": layers}


def _probing(acting: Acting) -> Probing | None:
    if isinstance(acting, Probing):
        return acting
    parts = getattr(acting, "parts", [])  # of a combination
    return next((found for _, part in parts if (found := _probing(part)) is not None), None)


def merged(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The results of all workers as one, with the LRS scores over all layers in "scores" (see
    `normprobe.policies.selection.probe_scores`).

    Pipeline stages hold different layers, tensor-parallel ranks the same.
    """
    whole: dict[str, dict[str, Any]] = {}
    for part in parts:
        for request, seen in part.items():
            into = whole.setdefault(request, {"n_tokens": 0, "layers": {}})
            into["n_tokens"] = max(into["n_tokens"], seen["n_tokens"])
            into["layers"] |= seen["layers"]
    for seen in whole.values():
        seen["layers"] = {layer: seen["layers"][layer] for layer in sorted(seen["layers"], key=int)}
        sums = {
            form: math.fsum(values[name] for values in seen["layers"].values())
            for form, name in zip(FORMS, SUMS, strict=True)
        }
        seen["scores"] = with_rates(sums, seen["n_tokens"])
    return whole


@dataclass(frozen=True)
class Sample:
    """Which of the n samples of a prompt a request is; to vLLM's core each is a request of its own."""

    prompt: str
    index: str
    n: int

    @classmethod
    def of(cls, request: Any) -> Sample | None:
        """None if it is the only one."""
        n = request.sampling_params.extra_args.get(SAMPLES, 1)
        if n == 1:
            return None
        index, _, prompt = request.request_id.partition("_")  # vLLM's names of samples
        return cls(prompt, index, n)


class Reporting:
    """Of one engine core: which running requests want results, and results of samples whose siblings still run."""

    def __init__(self, core: Any) -> None:
        # Here: this module is read without vLLM too.
        from normprobe.engines.vllm.core.stop_strings import StopStrings

        self._core = core
        self._wanted: dict[str, Sample | None] = {}
        self._samples: dict[str, dict[str, Any]] = {}
        self._stops = StopStrings(core.vllm_config.model_config)

    def added(self, request: Any) -> None:
        params = request.sampling_params
        if params is not None and wants(params.extra_args):
            self._wanted[request.request_id] = Sample.of(request)
            self._stops.follow(request)

    def forget(self, requests: Iterable[str]) -> None:
        """These have gone. Results of samples stay while siblings run: the last one brings them."""
        gone = [self._wanted.pop(name) for name in requests if name in self._wanted]
        if gone:
            self._stops.keep(self._wanted.keys())
        if any(sample is not None for sample in gone):
            going = {sample.prompt for sample in self._wanted.values() if sample is not None}
            self._samples = {prompt: done for prompt, done in self._samples.items() if prompt in going}

    def complete(self, outputs: Mapping[int, Any] | None) -> None:
        """Fill in the results of the requests that finish with these outputs.

        The samples of one prompt are one output to the caller, who sees what the last of them brings: that is
        {"samples": {index: result}}.
        """
        if not self._wanted:
            return
        finished = {
            output.request_id: output
            for group in (outputs or {}).values()
            for output in group.outputs
            if output.request_id in self._wanted and (self._stops.ended(output) or output.finished)
        }
        if not finished:
            return
        samples = {request: self._wanted.pop(request) for request in finished}
        self._stops.keep(self._wanted.keys())
        seen = merged(self._core.model_executor.collective_rpc("normprobe_results", args=(list(finished),)))
        for request, result in seen.items():
            if (sample := samples[request]) is not None:
                self._samples.setdefault(sample.prompt, {})[sample.index] = result
        for request, result in seen.items():
            sample, output = samples[request], finished[request]
            told = result if sample is None else {"samples": dict(self._samples[sample.prompt])}
            output.kv_transfer_params = {**(output.kv_transfer_params or {}), FIELD: told}
        for sample in samples.values():
            if sample is not None and len(self._samples.get(sample.prompt, ())) == sample.n:
                del self._samples[sample.prompt]
