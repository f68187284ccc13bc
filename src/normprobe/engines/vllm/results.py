"""What probes saw, back to who asked: on the final output of a request, in its `kv_transfer_params["normprobe"]`.

That field of vLLM's outputs is the one free dictionary that reaches the engine's caller, offline and over HTTP. It is
filled once per request, when it finishes: one call to the workers for all requests that finish in a step, none for
requests without a probe.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from normprobe.engines.vllm.configuration import FIELD
from normprobe.engines.vllm.slots import Slots
from normprobe.policies.probe import Probing
from normprobe.policies.rows import Acting

_SAMPLE = re.compile(r"(?P<index>\d+)_(?P<prompt>.+)")
"""How vLLM names the samples of a prompt with n > 1."""


def wants(extra_args: Mapping[str, Any] | None) -> bool:
    """Whether an admitted request's policy holds a probe."""
    text = (extra_args or {}).get(FIELD)
    if not isinstance(text, str):
        return False
    spec = json.loads(text)
    return any(part.get("policy") == "probe" for part in (spec if isinstance(spec, list) else [spec]))


def collect(slots: Slots, requests: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By request, of those that a probe has seen: {"n_tokens": int, "layers": {layer: {"total", "excess", "above",
    "largest" and, with max_tokens > 0, "norm": [token]}}} (see `normprobe.policies.probe.Summary`)."""
    found: dict[str, dict[str, Any]] = {}
    for request in requests:
        held = slots.held.get(request)
        probing = None if held is None else _probing(slots.acting[held.policy])
        if held is None or probing is None:
            continue
        seen = probing.summary([held.slot])
        n = int(seen.n_tokens[0])
        layers = {}
        for i, layer in enumerate(probing.settings.layers):
            layers[str(layer)] = {
                "total": float(seen.total[0, i]),
                "excess": float(seen.excess[0, i]),
                "above": int(seen.above[0, i]),
                "largest": float(seen.largest[0, i]),
            }
            if probing.settings.max_tokens:
                layers[str(layer)]["norm"] = seen.norm[0, i, : min(n, probing.settings.max_tokens)].tolist()
        found[request] = {"n_tokens": n, "layers": layers}
    return found


def _probing(acting: Acting) -> Probing | None:
    if isinstance(acting, Probing):
        return acting
    parts = getattr(acting, "parts", [])  # of a combination
    return next((found for _, part in parts if (found := _probing(part)) is not None), None)


def merged(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The results of several workers: pipeline stages hold different layers, tensor-parallel ranks the same."""
    whole: dict[str, dict[str, Any]] = {}
    for part in parts:
        for request, seen in part.items():
            into = whole.setdefault(request, {"n_tokens": 0, "layers": {}})
            into["n_tokens"] = max(into["n_tokens"], seen["n_tokens"])
            for layer, values in seen["layers"].items():
                into["layers"].setdefault(layer, values)
    return whole


class Reporting:
    """Of one engine core: which running requests want results, and results of samples whose siblings still run."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._wanted: set[str] = set()
        self._samples: dict[str, dict[str, Any]] = {}

    def added(self, request: Any) -> None:
        params = request.sampling_params
        if params is not None and wants(params.extra_args):
            self._wanted &= self._core.scheduler.requests.keys()  # aborted ones never finish
            self._wanted.add(request.request_id)

    def complete(self, outputs: Mapping[int, Any] | None) -> None:
        """Fill in the results of the requests that finish with these outputs.

        The n samples of one prompt are requests of their own here, one output to the caller, who sees what the last of
        them brings: that is {"samples": {index: result}}.
        """
        finished = {
            output.request_id: output
            for group in (outputs or {}).values()
            for output in group.outputs
            if output.finished and output.request_id in self._wanted
        }
        if not finished:
            return
        self._wanted -= finished.keys()
        seen = merged(self._core.model_executor.collective_rpc("normprobe_results", args=(list(finished),)))
        for request, result in seen.items():
            if (sample := _SAMPLE.match(request)) is not None:
                self._samples.setdefault(sample["prompt"], {})[sample["index"]] = result
        for request in seen:
            sample, output = _SAMPLE.match(request), finished[request]
            result = seen[request] if sample is None else {"samples": dict(self._samples[sample["prompt"]])}
            output.kv_transfer_params = {**(output.kv_transfer_params or {}), FIELD: result}
        going = {
            sample["prompt"] for request in self._wanted if (sample := _SAMPLE.match(request)) is not None
        }
        self._samples = {prompt: done for prompt, done in self._samples.items() if prompt in going}


def report(engine_core: type) -> None:
    """Wrap vLLM's `EngineCore`: `add_request`, and the two forms of `step`."""

    def reporting(core: Any) -> Reporting:
        if not hasattr(core, "_normprobe"):
            core._normprobe = Reporting(core)
        return core._normprobe

    add_request = engine_core.add_request  # type: ignore[attr-defined]

    @functools.wraps(add_request)
    def added(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        add_request(self, request, *args, **kwargs)
        reporting(self).added(request)

    def reported(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def stepped(self: Any, *args: Any, **kwargs: Any) -> Any:
            outputs, executed = step(self, *args, **kwargs)
            reporting(self).complete(outputs)
            return outputs, executed

        return stepped

    engine_core.add_request = added  # type: ignore[attr-defined]
    for name in ("step", "step_with_batch_queue"):
        setattr(engine_core, name, reported(getattr(engine_core, name)))
