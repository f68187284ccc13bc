"""A vLLM engine in this process for a model that is open in Transformers: of the same weights, for a while."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from normprobe.engines.vllm.engine import VllmEngine
from normprobe.errors import NormprobeError
from normprobe.model_settings import ModelSettings
from normprobe.models.locate import find
from normprobe.models.model import OpenModel
from normprobe.runs.process_variables import environment_variables

CACHE_ON_CPU = 2**31
"""Bytes of key-value cache on a CPU, unless VLLM_CPU_KVCACHE_SPACE names GiB."""
SHARE_OF_GPU = 0.9
"""Of the memory that is free when the engine starts: the model itself stays where it is."""
_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as many threads as this process has
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # of a process that has a model open
}


@contextmanager
def vllm_engine(opened: OpenModel, settings: ModelSettings) -> Iterator[VllmEngine]:
    """An engine for as long as the block lasts. settings: those that the model was opened with.

    Eager and without asynchronous scheduling, so that a response and what is recorded of it end with the same pass.
    Its end is that of any other vLLM engine in this process, too: vLLM gives up the process groups that they share.
    Raises NormprobeError for a model on another device than vLLM's, or spread over several.
    """
    with environment_variables(_VARIABLES | os.environ), tempfile.TemporaryDirectory() as folder:
        from vllm import LLM
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.platforms import current_platform

        kind = current_platform.device_type
        if settings.device == "auto" or opened.device.type != kind:
            raise NormprobeError(
                f"expected --device {kind}, for which vLLM is installed here, got {settings.device}; "
                "give that one, or leave the engine at hf"
            )
        memory: dict[str, Any] = {}
        parallel: dict[str, Any] = {}
        if settings.tensor_parallel_size > 1:
            parallel = {
                "tensor_parallel_size": settings.tensor_parallel_size,
                "distributed_executor_backend": "mp",
            }
        if kind == "cuda":
            free, total = torch.cuda.mem_get_info()
            memory["gpu_memory_utilization"] = SHARE_OF_GPU * free / total
        elif "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            memory["kv_cache_memory_bytes"] = CACHE_ON_CPU
        with _hidden("llvmlite.binding.ffi"):
            llm = LLM(
                **_weights(opened, settings, Path(folder)),
                dtype=settings.dtype,
                max_model_len=-1,  # the model's own, or as much as the cache has room for
                skip_tokenizer_init=True,
                enforce_eager=True,
                async_scheduling=False,
                disable_log_stats=True,
                additional_config={"normprobe": {"profile": None}},
                **memory,
                **parallel,
            )
        try:
            yield VllmEngine(llm, opened.chat, opened.identity)
        finally:
            llm.llm_engine.engine_core.shutdown()
            cleanup_dist_env_and_memory()


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Leave a module out of those that are loaded. vLLM 0.32 on a CPU searches all of them for kernels, and fails at a
    proxy in this one, which numba loads."""
    found = sys.modules.pop(module, None)
    try:
        yield
    finally:
        if found is not None:
            sys.modules[module] = found


def _weights(opened: OpenModel, settings: ModelSettings, folder: Path) -> dict[str, Any]:
    """Where vLLM reads the model: from its own files, or from `folder`, if those do not hold what is open."""
    if not settings.is_in_memory and not settings.name.endswith(":untrained"):
        checkpoint = find(
            settings.name, settings.revision, settings.offline, settings.trust_remote_code
        ).checkpoint
        if not (checkpoint.gguf_file or checkpoint.adapter or checkpoint.tokenizer_folder):
            return {
                "model": checkpoint.location,
                "revision": checkpoint.revision,
                "trust_remote_code": checkpoint.trust_remote_code,
            }
    opened.model.save_pretrained(folder)
    return {"model": str(folder)}
