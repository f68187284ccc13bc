"""Stop strings, found in the engine core: which requests the front end is about to end.

vLLM looks for stop strings in the front end, when the final output is out and can bring no results any more. So for
requests that want results the core reads along, with vLLM's own detokenizer, on the host.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.engine.detokenizer import IncrementalDetokenizer


class StopStrings:
    """The text of the requests that have stop strings, as far as it is generated."""

    def __init__(self, model_config: Any) -> None:
        self._model_config = model_config
        self._reading: dict[str, IncrementalDetokenizer] = {}

    def follow(self, request: Any) -> None:
        """Read this request's tokens from now on, if it has stop strings."""
        if request.sampling_params.stop:
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
