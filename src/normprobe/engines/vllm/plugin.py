"""The entry point in `vllm.general_plugins`: called in every process; without a configuration it changes nothing.

Wrapped are `EngineArgs.create_engine_config` (find and check the configuration), `InputProcessor.process_inputs`
(validate each request), what beam search asks first (see beam_search.py), and what lets requests into an engine core
and out of it (see core.py), and the server's streams (see streaming.py). The rest goes through `worker_cls`.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import functools
import os
import warnings
from typing import Any

from normprobe.engines.vllm.configuration import FIELD, OPERATOR, Configuration, policy_of
from normprobe.engines.vllm.limits import Limits
from normprobe.errors import NormprobeError

WORKER = "normprobe.engines.vllm.worker.worker.NormprobeWorker"
STANDS_FOR = ("auto", "vllm.v1.worker.cpu_worker.CPUWorker", "vllm.v1.worker.gpu_worker.Worker", WORKER)


def register() -> None:
    """Wrap, once per process."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.engine.input_processor import InputProcessor

    from normprobe.engines.vllm.core.scheduling import attend
    from normprobe.engines.vllm.frontend import beam_search
    from normprobe.engines.vllm.frontend.admission import admit
    from normprobe.engines.vllm.frontend.streaming import tell_in_streams

    if hasattr(EngineCore, "_normprobe_registered"):
        return
    EngineCore._normprobe_registered = True
    create, process = EngineArgs.create_engine_config, InputProcessor.process_inputs

    @functools.wraps(create)
    def configured(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = create(self, *args, **kwargs)
        configuration = Configuration.find(config.additional_config, os.environ)
        if configuration is not None:
            prepare(config, configuration)
            beam_search.refuse_under_policy_over_http()
            tell_in_streams()
        return config

    @functools.wraps(process)
    def admitted(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = process(self, *args, **kwargs)
        admit(request, self.vllm_config)
        return request

    EngineArgs.create_engine_config, InputProcessor.process_inputs = configured, admitted
    beam_search.refuse_under_default_policy(InputProcessor)
    attend(EngineCore)


def prepare(config: Any, configuration: Configuration) -> None:
    """Make this engine one with policies.

    Raises NormprobeError, before any model is loaded, for what policies cannot run on, or a profile of another model.
    """
    for wrong, expected, remedy in _conflicts(config):
        if wrong:
            raise NormprobeError(f"expected {expected} for normprobe in vLLM; {remedy}")
    worker = config.parallel_config.worker_cls
    if worker not in STANDS_FOR:
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
    if configuration.policy is not None:
        policy = policy_of(configuration.policy, profile, text_config.num_hidden_layers)
        Limits.of(config).check(policy)
    _compile_around(config.compilation_config)
    config.parallel_config.worker_cls = WORKER
    config.additional_config = {**config.additional_config, FIELD: configuration.to_dict()}


def _compile_around(compilation: Any) -> None:
    """Graphs end where policies run (see compiled.py), as at attention."""
    from vllm.config import CUDAGraphMode

    if compilation.splitting_ops:
        compilation.splitting_ops = [*compilation.splitting_ops, OPERATOR]
    if compilation.cudagraph_mode == CUDAGraphMode.FULL_AND_PIECEWISE:
        warnings.warn(
            "normprobe runs between CUDA graphs: cudagraph_mode is PIECEWISE instead of FULL_AND_PIECEWISE",
            stacklevel=2,
        )
        compilation.cudagraph_mode = CUDAGraphMode.PIECEWISE


def _conflicts(config: Any) -> list[tuple[bool, str, str]]:
    """(whether it is so, what is expected, what to do)."""
    from vllm import envs
    from vllm.config import CompilationMode, CUDAGraphMode

    compilation, parallel = config.compilation_config, config.parallel_config
    mode, graphs = compilation.mode, compilation.cudagraph_mode
    return [
        (
            bool(config.use_v2_model_runner),
            "the V1 model runner, got V2",
            "set VLLM_USE_V2_MODEL_RUNNER=0",
        ),
        (
            mode == CompilationMode.STOCK_TORCH_COMPILE
            or (mode == CompilationMode.NONE and graphs != CUDAGraphMode.NONE),
            f"eager mode, or vLLM's own compilation, got {mode.name} and CUDA graphs {graphs.name}",
            "pass enforce_eager=True (--enforce-eager) or compilation mode 3 (-cc.mode=3)",
        ),
        (
            graphs in (CUDAGraphMode.FULL, CUDAGraphMode.FULL_DECODE_ONLY),
            f"CUDA graphs in pieces, between which policies run, got {graphs.name}",
            "pass cudagraph_mode PIECEWISE (-cc.cudagraph_mode=PIECEWISE)",
        ),
        (
            config.speculative_config is not None,
            "one token per step, got speculative decoding",
            "drop speculative_config",
        ),
        (config.lora_config is not None, "a model without adapters, got LoRA", "drop enable_lora"),
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
