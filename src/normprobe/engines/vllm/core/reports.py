"""Results of probes, and events, on the final output of a request, in its `kv_transfer_params["normprobe"]`.

That is the one free dictionary of vLLM's outputs that reaches the engine's caller, offline and over HTTP. The workers
are asked once for all requests that finish in a step. Under asynchronous scheduling a pass may be under way when a stop
string is found; its token may then be in the sums of that request.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normprobe.engines.base import with_scores
from normprobe.engines.vllm.configuration import FIELD, SAMPLES, wants_results


def merged(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The results of all workers as one, those of probes `with_scores`.

    Pipeline stages hold different layers, tensor-parallel ranks the same.
    """
    probes: dict[str, dict[str, Any]] = {}
    events: dict[str, dict[str, Any]] = {}
    for part in parts:
        for request, result in part.items():
            if "layers" in result:
                into = probes.setdefault(request, {"n_tokens": 0, "layers": {}})
                into["n_tokens"] = max(into["n_tokens"], result["n_tokens"])
                into["layers"] |= result["layers"]
            if "events" in result:
                events.setdefault(request, {}).update(result["events"])
    found = {request: with_scores(result) for request, result in probes.items()}
    for request, by_layer in events.items():
        found.setdefault(request, {})["events"] = by_layer
    return found


@dataclass(frozen=True)
class SampleOf:
    """The place of a request among the n samples of a prompt; to vLLM's core each is a request of its own."""

    prompt: str
    index: str
    n: int

    @classmethod
    def of(cls, request: Any) -> SampleOf | None:
        """None for the only response to its prompt."""
        n = request.sampling_params.extra_args.get(SAMPLES, 1)
        if n == 1:
            return None
        index, _, prompt = request.request_id.partition("_")  # vLLM's names of samples
        return cls(prompt, index, n)


class StopStrings:
    """The text of the requests that have stop strings, as far as it is generated.

    vLLM looks for stop strings in the front end, when the final output is out and can bring no results any more. So for
    requests that want results the core reads along, with vLLM's own detokenizer, on the host.
    """

    def __init__(self, model_config: Any) -> None:
        self._model_config = model_config
        self._reading: dict[str, Any] = {}

    def follow(self, request: Any) -> None:
        """Read this request's tokens from now on, if it has stop strings."""
        if request.sampling_params.stop:
            # Here: this module is read without vLLM too.
            from vllm.tokenizers import cached_tokenizer_from_config
            from vllm.v1.engine.detokenizer import IncrementalDetokenizer

            tokenizer = cached_tokenizer_from_config(self._model_config)
            self._reading[request.request_id] = IncrementalDetokenizer.from_new_request(tokenizer, request)

    def ended(self, output: Any) -> bool:
        """Whether the tokens of this output, the next of its request, complete a stop string."""
        reading = self._reading.get(output.request_id)
        return reading is not None and bool(reading.update(output.new_token_ids, output.finished))

    def keep(self, requests: Collection[str]) -> None:
        """Forget all requests but these."""
        for request in self._reading.keys() - set(requests):
            del self._reading[request]


class Reports:
    """The requests of an engine core that want results, and results of samples whose siblings still run."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._wanted: dict[str, SampleOf | None] = {}
        self._samples: dict[str, dict[str, Any]] = {}
        self._stops = StopStrings(core.vllm_config.model_config)

    def follow(self, request: Any) -> None:
        """Report on this request when it ends, if its policy holds a probe or it asks for events."""
        params = request.sampling_params
        if params is not None and wants_results(params.extra_args):
            self._wanted[request.request_id] = SampleOf.of(request)
            self._stops.follow(request)

    def forget(self, requests: Iterable[str]) -> None:
        """Drop requests that have ended. Results of samples stay while siblings run: the last one brings them."""
        gone = [self._wanted.pop(name) for name in requests if name in self._wanted]
        if gone:
            self._stops.keep(self._wanted.keys())
        if any(sample is not None for sample in gone):
            going = {sample.prompt for sample in self._wanted.values() if sample is not None}
            self._samples = {prompt: done for prompt, done in self._samples.items() if prompt in going}

    def complete(self, outputs: Mapping[int, Any] | None) -> None:
        """Put results onto the outputs of the requests that finish with them.

        The samples of one prompt are one output to the caller, who gets what the last of them brings: that is
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
        results = merged(
            self._core.model_executor.collective_rpc("normprobe_results", args=(list(finished),))
        )
        for request, result in results.items():
            if (sample := samples[request]) is not None:
                self._samples.setdefault(sample.prompt, {})[sample.index] = result
        for request, result in results.items():
            sample, output = samples[request], finished[request]
            report = result if sample is None else {"samples": dict(self._samples[sample.prompt])}
            output.kv_transfer_params = {**(output.kv_transfer_params or {}), FIELD: report}
        for sample in samples.values():
            if sample is not None and len(self._samples.get(sample.prompt, ())) == sample.n:
                del self._samples[sample.prompt]
