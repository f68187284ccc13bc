"""vLLM's V1 model runner (`vllm.v1.worker.gpu_model_runner`, also the CPU's), as `WatchedRunner`."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from vllm.config import CUDAGraphMode
from vllm.forward_context import get_forward_context

from normprobe.engines.vllm import patches
from normprobe.engines.vllm.worker.eligible_rows import PassLayout
from normprobe.engines.vllm.worker.runner import WatchedRunner


class RunnerV1(WatchedRunner):
    """Wraps `_update_states`, which says which requests start and end, `_model_forward`, one pass, and the choice of a
    CUDA graph."""

    def watch(
        self,
        update: Callable[[Any], None],
        begin: Callable[[], None],
        finish: Callable[[], None],
        may_be_whole: Callable[[], bool],
    ) -> None:
        def updating(update_states: Callable[..., Any], scheduler_output: Any) -> Any:
            update(scheduler_output)
            return update_states(scheduler_output)

        def forwarding(model_forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            begin()
            try:
                return model_forward(*args, **kwargs)
            finally:
                finish()

        def dispatching(dispatch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            # `valid_modes` is what several ranks have agreed on, all of them through here.
            if kwargs.get("valid_modes") is None and not may_be_whole():
                kwargs["invalid_modes"] = {CUDAGraphMode.FULL, *(kwargs.get("invalid_modes") or ())}
            return dispatch(*args, **kwargs)

        patches.wrap(self.runner, "_update_states", updating)
        patches.wrap(self.runner, "_model_forward", forwarding)
        patches.wrap(self.runner.cudagraph_dispatcher, "dispatch", dispatching)

    @property
    def whole(self) -> bool:
        return get_forward_context().cudagraph_runtime_mode == CUDAGraphMode.FULL

    def buffers(self) -> tuple[Int[torch.Tensor, " row"], Int[torch.Tensor, " row"]]:
        return self.runner.input_ids.gpu, self.runner.positions

    def starting(self, scheduler_output: Any) -> dict[str, Any]:
        parameters = {new.req_id: new.sampling_params for new in scheduler_output.scheduled_new_reqs}
        for request in scheduler_output.scheduled_cached_reqs.resumed_req_ids:
            parameters[request] = self.runner.requests[request].sampling_params
        return parameters

    def layout(self) -> PassLayout:
        batch = self.runner.input_batch
        n = batch.num_reqs
        return PassLayout(
            batch.req_ids,
            self.runner.query_start_loc.np[: n + 1],
            batch.num_computed_tokens_cpu[:n],
            batch.num_prompt_tokens[:n],
        )

    def tokens(self) -> Int[torch.Tensor, " token"]:
        # The runner's own: a model that takes embeddings is given no tokens.
        return self.runner.input_ids.gpu

    def block_table(self, group: int) -> Int[torch.Tensor, "request block"]:
        batch = self.runner.input_batch
        return batch.block_table[group].get_device_tensor(max(batch.num_reqs, 1))

    def kernel_block_size(self, group: int) -> Any:
        return self.runner._kernel_block_sizes[group]
