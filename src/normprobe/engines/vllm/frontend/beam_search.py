"""Beam search: vLLM asks for each next token of each beam in a request of its own, so no policy can follow a beam."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import functools
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams

from normprobe.engines.vllm.configuration import FIELD, Configuration


def refuse_under_default_policy(input_processor: type) -> None:
    """Wrap what every beam search asks of vLLM's `InputProcessor` before its first token, offline and over HTTP."""
    resolve = input_processor.resolve_watermarking  # type: ignore[attr-defined]

    @functools.wraps(resolve)
    def resolved(self: Any, params: Any) -> Any:
        configuration = Configuration.of(self.vllm_config.additional_config)
        if (
            isinstance(params, BeamSearchParams)
            and configuration is not None
            and configuration.policy is not None
        ):
            raise _refusal("an engine with a default policy")
        return resolve(self, params)

    input_processor.resolve_watermarking = resolved  # type: ignore[attr-defined]


def refuse_under_policy_over_http() -> None:
    """Wrap the requests that can name both; vLLM would drop the policy without a word."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    def refusing(to_params: Any) -> Any:
        @functools.wraps(to_params)
        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            if FIELD in (self.vllm_xargs or {}):
                raise _refusal("a policy")
            return to_params(self, *args, **kwargs)

        checked._normprobe = True  # type: ignore[attr-defined]
        return checked

    for request in (ChatCompletionRequest, CompletionRequest):
        if not hasattr(request.to_beam_search_params, "_normprobe"):
            request.to_beam_search_params = refusing(request.to_beam_search_params)


def _refusal(got: str) -> VLLMValidationError:
    return VLLMValidationError(
        f"expected sampling, got beam search under {got}; drop use_beam_search", parameter=FIELD
    )
