"""vLLM's worker of this platform, with policies attached to its model runner, and the calls that read them."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

from vllm.config import CompilationMode
from vllm.platforms import current_platform

from normprobe.engines.vllm.configuration import Configuration
from normprobe.engines.vllm.worker.compiled import CompiledRunnerHooks
from normprobe.engines.vllm.worker.runner_hooks import RunnerHooks
from normprobe.engines.vllm.worker.runner_v1 import RunnerV1
from normprobe.engines.vllm.worker.runner_v2 import RunnerV2

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker


class NormprobeWorker(PlatformWorker):  # type: ignore[misc]
    """A worker whose model runs under policies. Chosen through `worker_cls`, vLLM's own way to extend a worker."""

    def load_model(self, **kwargs: Any) -> None:
        """Load the model and attach policies, before vLLM profiles: the default policy's memory is then counted."""
        super().load_model(**kwargs)
        configuration = Configuration.of(self.vllm_config.additional_config)
        assert configuration is not None, "the front end chooses this worker together with its configuration"
        compiled = self.vllm_config.compilation_config.mode != CompilationMode.NONE
        watched = (RunnerV2 if self.use_v2_model_runner else RunnerV1)(self.model_runner)
        self.normprobe = (CompiledRunnerHooks if compiled else RunnerHooks)(watched, configuration)

    def compile_or_warm_up_model(self) -> Any:
        """Check that policies can act, then warm up: the key-value cache exists and no request has come.

        Raises NormprobeError for a model in which no policy can act.
        """
        self.normprobe.check()
        return super().compile_or_warm_up_model()

    def normprobe_state(self) -> dict[str, int]:
        """How many requests are active under a policy, and how many policies are kept."""
        slots = self.normprobe.slots
        return {"requests": len(slots.active), "policies": len(slots.running)}

    def normprobe_keep(self, description: str, text: str | None) -> None:
        """Keep a policy (`write_policy`) for the requests of this description; None: no longer."""
        if text is None:
            self.normprobe.kept.pop(description, None)
        else:
            self.normprobe.kept[description] = text

    def normprobe_results(self, requests: list[str]) -> dict[str, dict[str, Any]]:
        """What the probes measured on these requests, at this worker's layers, and the events of those that ask."""
        return self.normprobe.results(requests)
