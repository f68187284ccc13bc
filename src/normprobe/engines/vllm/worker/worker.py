"""vLLM's worker of this platform, with policies attached to its model runner, and the calls that read them."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

from vllm.config import CompilationMode
from vllm.platforms import current_platform

from normprobe.engines.vllm.configuration import Configuration
from normprobe.engines.vllm.core.reports import collect
from normprobe.engines.vllm.worker.compiled import CompiledServing
from normprobe.engines.vllm.worker.runner_hooks import Serving

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker


class NormprobeWorker(PlatformWorker):  # type: ignore[misc]
    """Chosen through `worker_cls`, vLLM's own way to extend a worker."""

    def load_model(self, **kwargs: Any) -> None:
        """Load, then attach: before profiling, so that what the engine's default policy takes is counted."""
        super().load_model(**kwargs)
        configuration = Configuration.of(self.vllm_config.additional_config)
        assert configuration is not None, "the plugin chooses this worker together with its configuration"
        compiled = self.vllm_config.compilation_config.mode != CompilationMode.NONE
        self.normprobe = (CompiledServing if compiled else Serving)(self.model_runner, configuration)

    def compile_or_warm_up_model(self) -> Any:
        """Here the cache is there and no request yet. Raises NormprobeError where no policy can act."""
        self.normprobe.check()
        return super().compile_or_warm_up_model()

    def normprobe_state(self) -> dict[str, int]:
        """How much is held: requests at work under a policy, and policies."""
        slots = self.normprobe.slots
        return {"requests": len(slots.held), "policies": len(slots.acting)}

    def normprobe_results(self, requests: list[str]) -> dict[str, dict[str, Any]]:
        """What the probes saw of these requests, on this worker's layers (see results.py)."""
        return collect(self.normprobe.slots, requests, self.normprobe.layers)
