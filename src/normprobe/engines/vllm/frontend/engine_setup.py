"""The configuration of an engine with policies: what it cannot be combined with, and what is set in it."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from normprobe.engines.vllm import patches
from normprobe.engines.vllm.configuration import FIELD, OPERATOR, Configuration
from normprobe.engines.vllm.frontend.variables import find_configuration
from normprobe.engines.vllm.limits import Limits
from normprobe.engines.vllm.symbols import Use
from normprobe.errors import NormprobeError

WORKER = "normprobe.engines.vllm.worker.worker.NormprobeWorker"
REPLACEABLE = ("auto", "vllm.v1.worker.cpu_worker.CPUWorker", "vllm.v1.worker.gpu_worker.Worker", WORKER)
"""Values of `worker_cls` that stand for vLLM's own worker, or for ours."""


def configuring(create_engine_config: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Wraps `EngineArgs.create_engine_config`: where a configuration of normprobe is found, sets the engine up."""
    config = create_engine_config(*args, **kwargs)
    configuration = find_configuration(config.additional_config, os.environ)
    if configuration is not None:
        patches.check()
        prepare(config, configuration)
        patches.apply(Use.SERVER)
    return config


def prepare(config: Any, configuration: Configuration) -> None:
    """Set an engine up for policies. config: vLLM's, changed in place.

    Raises NormprobeError for what policies cannot run on, and for a profile of another model; no model is loaded yet.
    """
    for wrong, expected, remedy in _conflicts(config):
        if wrong:
            raise NormprobeError(f"expected {expected} for normprobe in vLLM; {remedy}")
    worker = config.parallel_config.worker_cls
    if worker not in REPLACEABLE:
        raise NormprobeError(f"expected vLLM's own worker, got {worker}; drop worker_cls")
    text_config, profile = config.model_config.hf_text_config, configuration.layer_profile()
    if profile is not None:
        profile.for_model(
            {
                "name": config.model_config.model,
                "n_layers": text_config.num_hidden_layers,
                "d_model": config.model_config.get_hidden_size(),
                "vocab": text_config.vocab_size,
            }
        )
    for policy in configuration.lasting_policies(text_config.num_hidden_layers).values():
        Limits.of(config).check(policy)
    # Replicas of a dense model do not wait for each other.
    n_replicas = config.parallel_config.data_parallel_size if config.model_config.is_moe else 1
    _split_graphs(config.compilation_config, n_replicas)
    config.parallel_config.worker_cls = WORKER
    config.additional_config = {**config.additional_config, FIELD: asdict(configuration)}


def _split_graphs(compilation: Any, n_replicas: int) -> None:
    """Let compiled graphs end where policies run (see worker/compiled.py), as they do at attention.

    n_replicas: those that have to agree on every step.
    """
    if compilation.splitting_ops:
        compilation.splitting_ops = [*compilation.splitting_ops, OPERATOR]
    mode = compilation.cudagraph_mode
    if n_replicas > 1 and mode.has_full_cudagraphs():
        # A replica whose requests ask for a policy of their own takes pieces, and all must take the same.
        compilation.cudagraph_mode = mode.mixed_mode()
        warnings.warn(
            f"normprobe with {n_replicas} data-parallel replicas: cudagraph_mode is "
            f"{compilation.cudagraph_mode.name} instead of {mode.name}",
            stacklevel=2,
        )


def _conflicts(config: Any) -> list[tuple[bool, str, str]]:
    """What policies cannot run on: (whether this engine has it, what is expected, what to do)."""
    from vllm import envs
    from vllm.config import CompilationMode, CUDAGraphMode

    compilation, parallel = config.compilation_config, config.parallel_config
    mode, graphs = compilation.mode, compilation.cudagraph_mode
    return [
        (
            mode == CompilationMode.STOCK_TORCH_COMPILE
            or (mode == CompilationMode.NONE and graphs != CUDAGraphMode.NONE),
            f"eager mode, or vLLM's own compilation, got {mode.name} and CUDA graphs {graphs.name}",
            "pass enforce_eager=True (--enforce-eager) or compilation mode 3 (-cc.mode=3)",
        ),
        (
            graphs == CUDAGraphMode.FULL,
            "CUDA graphs of decode steps, or in pieces between which policies run, got FULL (of every pass)",
            "pass cudagraph_mode FULL_AND_PIECEWISE (-cc.cudagraph_mode=FULL_AND_PIECEWISE)",
        ),
        (
            config.speculative_config is not None,
            "one token per step, got speculative decoding",
            "drop speculative_config",
        ),
        (
            config.kv_transfer_config is not None,
            "a key-value cache of one engine, got a transfer of it",
            "drop kv_transfer_config",
        ),
        (
            envs.VLLM_USE_RUST_FRONTEND,
            "vLLM's Python front end, which validates policies, got the one in Rust",
            "unset VLLM_USE_RUST_FRONTEND",
        ),
        (
            config.model_config.runner_type != "generate",
            "a model that generates, got another",
            "unset NORMPROBE",
        ),
        (
            bool(parallel.use_ubatching),
            "whole batches, got micro-batching",
            "drop enable_dbo and ubatch_size",
        ),
        (
            parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1,
            "whole contexts on each rank, got context parallelism",
            "drop decode_context_parallel_size",
        ),
    ]
