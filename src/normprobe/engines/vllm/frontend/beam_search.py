"""The refusal of beam search under a policy.

vLLM asks for each next token of each beam in a request of its own, so no policy can follow a beam.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams

from normprobe.engines.vllm.configuration import FIELD, Configuration


def refusing_default_policy(resolve_watermarking: Callable[..., Any], processor: Any, params: Any) -> Any:
    """Wraps `InputProcessor.resolve_watermarking`, which every beam search calls before its first token."""
    configuration = Configuration.of(processor.vllm_config.additional_config)
    if isinstance(params, BeamSearchParams) and configuration and configuration.policy:
        raise _refusal("an engine with a default policy")
    return resolve_watermarking(processor, params)


def refusing_named_policy(
    to_beam_search_params: Callable[..., Any], request: Any, *args: Any, **kwargs: Any
) -> Any:
    """Wraps `to_beam_search_params` of HTTP requests that name a policy, which vLLM would silently drop."""
    if FIELD in (request.vllm_xargs or {}):
        raise _refusal("a policy")
    return to_beam_search_params(request, *args, **kwargs)


def _refusal(got: str) -> VLLMValidationError:
    return VLLMValidationError(
        f"expected sampling, got beam search under {got}; drop use_beam_search", parameter=FIELD
    )
