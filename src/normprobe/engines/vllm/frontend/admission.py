"""The policy that a request asks for: validated in the front end, before the engine admits the request.

Beam search is refused: vLLM asks for each next token of each beam in a request of its own, so no policy can follow one.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams

from normprobe.engines.vllm.configuration import (
    FIELD,
    KEPT,
    PLAIN,
    SAMPLES,
    Configuration,
    canonical,
    has_probe,
    policy_of,
)
from normprobe.engines.vllm.keyed_draws import DRAWS, KeyedDraws
from normprobe.engines.vllm.limits import Limits
from normprobe.errors import NormprobeError


def admitting(process_inputs: Callable[..., Any], processor: Any, *args: Any, **kwargs: Any) -> Any:
    """Wraps `InputProcessor.process_inputs`: each request that it makes is validated."""
    request = process_inputs(processor, *args, **kwargs)
    admit(request, processor.vllm_config)
    return request


def admit(request: Any, vllm_config: Any) -> None:
    """Resolve `extra_args["normprobe"]` of an EngineCoreRequest to canonical JSON, and keep its cache apart.

    The field holds a name ("alrr", "plain"), a mapping, a list of these, or JSON text of these (HTTP: `vllm_xargs`
    takes no nested values). Without it the engine's default policy holds.

    What a policy changes enters the key-value cache, and a policy's history starts with a response. So a request with
    a policy reads nothing from the prefix cache, and what it leaves there has a salt of its own.

    Raises VLLMValidationError, which refuses this request alone (HTTP 400).
    """
    params = request.sampling_params
    configuration = Configuration.of(vllm_config.additional_config)
    asked = None if params is None else (params.extra_args or {}).get(FIELD)
    if configuration is None:
        if asked is not None:
            raise _refusal(
                "an engine started with normprobe", "one without", "start it with NORMPROBE=PROFILE"
            )
        return
    if params is None:  # a pooling request
        return
    try:
        KeyedDraws.of(params.extra_args)
    except NormprobeError as error:
        raise VLLMValidationError(str(error), parameter=DRAWS) from error
    text = _resolve(asked, configuration, vllm_config)
    rest = {key: value for key, value in (params.extra_args or {}).items() if key not in (FIELD, SAMPLES)}
    params.extra_args = rest if text is None else {**rest, FIELD: text, SAMPLES: params.n}
    if text is None:
        return
    if request.resumable:
        raise _refusal("a whole prompt under a policy", "a streamed one", "send the prompt in one piece")
    scattered = vllm_config.parallel_config.data_parallel_size > 1 and request.data_parallel_rank is None
    if params.n > 1 and scattered and has_probe(params.extra_args):
        raise _refusal(
            "n = 1 for a probe under data parallelism, which scatters samples over ranks",
            f"n = {params.n}",
            "send as many requests, or name a data-parallel rank",
        )
    params.skip_reading_prefix_cache = True
    request.cache_salt = hashlib.sha256(f"{text} {request.cache_salt or ''}".encode()).hexdigest()


def _resolve(asked: Any, configuration: Configuration, vllm_config: Any) -> str | None:
    """Canonical JSON of the request's policy; None for no policy."""
    if asked is None:
        return configuration.policy
    try:
        text = canonical(asked)
        if text == canonical(PLAIN):
            return None
        if text in vllm_config.additional_config.get(KEPT, ()):  # was checked when it was kept
            return text
        n_layers = vllm_config.model_config.hf_text_config.num_hidden_layers
        _check(text, configuration, n_layers, Limits.of(vllm_config))
    # OverflowError: a number of 400 digits is JSON too.
    except (NormprobeError, ValueError, OverflowError, RecursionError) as error:
        raise VLLMValidationError(str(error), parameter=FIELD) from error
    return text


@lru_cache(maxsize=256)
def _check(text: str, configuration: Configuration, n_layers: int, limits: Limits) -> None:
    """Check that this engine can serve the policy; cached, for clients repeat themselves.

    Raises NormprobeError if it cannot.
    """
    policy = policy_of(text, configuration.layer_profile(), n_layers)
    limits.check(policy)
    limits.check_memory(policy)


def refusing_default_policy(resolve_watermarking: Callable[..., Any], processor: Any, params: Any) -> Any:
    """Wraps `InputProcessor.resolve_watermarking`, which every beam search calls before its first token."""
    configuration = Configuration.of(processor.vllm_config.additional_config)
    if isinstance(params, BeamSearchParams) and configuration and configuration.policy:
        raise _refusal(
            "sampling", "beam search under an engine with a default policy", "drop use_beam_search"
        )
    return resolve_watermarking(processor, params)


def refusing_named_policy(
    to_beam_search_params: Callable[..., Any], request: Any, *args: Any, **kwargs: Any
) -> Any:
    """Wraps `to_beam_search_params` of HTTP requests that name a policy, which vLLM would silently drop."""
    if FIELD in (request.vllm_xargs or {}):
        raise _refusal("sampling", "beam search under a policy", "drop use_beam_search")
    return to_beam_search_params(request, *args, **kwargs)


def refusing_results(make: Callable[..., Any], request: Any, *args: Any, **kwargs: Any) -> Any:
    """Wraps what makes single requests of a batch of chats, whose response has no place for results."""
    single = make(request, *args, **kwargs)
    # What describes no policy is refused once it is admitted.
    with suppress(NormprobeError):
        if has_probe({FIELD: canonical((single.vllm_xargs or {}).get(FIELD))}):
            raise _refusal("a policy without a probe", "a batch of chats with one", "send as many requests")
    return single


def _refusal(expected: str, got: str, remedy: str) -> VLLMValidationError:
    return VLLMValidationError(f"expected {expected}, got {got}; {remedy}", parameter=FIELD)
